"""What the service said, or did not say."""

from __future__ import annotations

from ratelimit.errors.root import JobStopped, RateLimitError, printable


class NotAnswered(RateLimitError):
    """A request got no usable answer from the service: no connection, no reply, a broken reply."""

    def __init__(self, what: str, *, sent: bool) -> None:
        billed = "it may have been billed" if sent else "it was not sent"
        super().__init__(f"{what}; {billed}. If this persists, look at the network, the base URL and the time-outs")
        self.sent = sent


class RequestFailed(RateLimitError):
    """The service has answered, and the answer is no."""

    def __init__(self, status: int, code: str | None, message: str, *, request_id: str | None = None) -> None:
        named = f"{status} {code}" if code else str(status)
        super().__init__(f"the service answered {named}: {printable(message)}")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id


class QuotaExhausted(JobStopped):
    """The account has no credits left, or has reached a spending limit."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(
            f"the account's quota is used up ({code}): {printable(message)} "
            f"Add credits or raise the spending limit, then run again"
        )
        self.code = code


class KeyRejected(JobStopped):
    """The service does not accept the key, or not for this."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(
            f"the service rejected the API key ({status}): {printable(message)} "
            f"Set OPENAI_API_KEY (and OPENAI_ORG_ID, OPENAI_PROJECT_ID) to ones that may use this model, then run again"
        )
        self.status = status


class ModelGone(JobStopped):
    """The service has no such model, or has it no longer, or not for this key."""

    def __init__(self, model: str, message: str) -> None:
        super().__init__(
            f'the service does not have the model "{printable(model, 100)}" for this key: {printable(message)} '
            f"Its rows are untouched; name another model in them, or use a key that may use it, then run again"
        )
        self.model = model


class NothingThere(JobStopped):
    """The service has nothing at an address: most likely the base URL is not quite right."""

    def __init__(self, url: str, status: int, message: str) -> None:
        super().__init__(
            f"there is nothing at {printable(url)} ({status}: {printable(message, 200)}); its rows are untouched; set "
            f"base_url to what stands before /chat/completions, which usually ends in /v1, then run again"
        )
        self.url = url


class HostNotTrusted(JobStopped):
    """The connection to the service cannot be trusted, so the key was not sent."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(
            f"{host} is not to be trusted with the key: {printable(why)}; check the base URL and the proxy"
        )
        self.host = host
