"""The one page of the mock: shows `/_mock/stats` each second, with no build step and nothing from elsewhere."""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ratelimit mock</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
         color: CanvasText; background: Canvas; color-scheme: light dark; }
  h1 { font-size: 1.2rem; }
  table { border-collapse: collapse; margin: 0 2rem 1rem 0; }
  td, th { padding: .1rem .8rem .1rem 0; text-align: left; font-variant-numeric: tabular-nums; }
  td { text-align: right; }
  main { display: flex; flex-wrap: wrap; }
  svg { width: 100%; height: 8rem; border-bottom: 1px solid GrayText; }
  .admitted { fill: #2a7; } .refused { fill: #d62; } .failed { fill: #b3c; }
</style>
<h1>ratelimit mock <small id="state" role="status">reading</small></h1>
<svg id="timeline" viewBox="0 0 120 100" preserveAspectRatio="none" role="img"
     aria-label="Requests in each of the last 120 seconds: admitted, refused, failed"></svg>
<p>The last 120 seconds with requests: admitted (green), refused (orange), failed (purple).
   <button id="reset" type="button">Reset</button></p>
<main id="tables"></main>
<script>
  const tables = document.getElementById("tables"), timeline = document.getElementById("timeline");
  const state = document.getElementById("state");
  function table(title, rows) {
    const made = document.createElement("table");
    made.createCaption().textContent = title;
    for (const [name, value] of rows) {
      const row = made.insertRow(), head = document.createElement("th");
      head.textContent = name;
      row.append(head);
      row.insertCell().textContent = typeof value === "number" ? value.toLocaleString("en") : value;
    }
    return made;
  }
  function draw(seconds) {
    const last = seconds.slice(-120), most = Math.max(1, ...last.map(each => each.arrived));
    timeline.replaceChildren();
    last.forEach((each, place) => {
      let y = 100;
      for (const kind of ["admitted", "refused", "failed"]) {
        const height = each[kind] / most * 100, bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        y -= height;
        for (const [name, value] of Object.entries({ x: place, y, width: .9, height, class: kind }))
          bar.setAttribute(name, value);
        timeline.append(bar);
      }
    });
  }
  async function show() {
    try {
      const stats = await (await fetch("/_mock/stats")).json();
      const plain = Object.entries(stats).filter(([, value]) => typeof value === "number");
      const groups = ["refused", "statuses", "faults", "models"].map(name => table(name, Object.entries(stats[name])));
      const peaks = Object.entries(stats.peaks)
        .map(([name, values]) => table("peak in " + name, Object.entries(values)));
      tables.replaceChildren(table("requests", plain), ...peaks, ...groups);
      draw(stats.timeline);
      state.textContent = "live";
    } catch { state.textContent = "not reachable"; }
  }
  document.getElementById("reset").onclick = async () => { await fetch("/_mock/reset", { method: "POST" }); show(); };
  show();
  setInterval(show, 1000);
</script>
</html>
"""
