"""Limits that several programs share: leases from one place, where each lane's buckets are kept once for all."""
