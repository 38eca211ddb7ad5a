"use strict";
// Shows the cell under the pointer or chosen by keys; copies the methods; opens what is folded before printing.
// Everything it shows is already in the page: it only reads text and moves a picture.
(function () {
  const plot = document.getElementById("explore-plot");
  if (plot) explore(plot);
  for (const button of document.querySelectorAll("button[data-copy]")) offerCopy(button);
  addEventListener("beforeprint", function () {
    for (const folded of document.querySelectorAll("details")) folded.open = true;
  });

  function explore(svg) {
    const REACH = 16; // units of the drawing around the pointer
    const panel = document.getElementById("explore-panel");
    const thumb = document.getElementById("explore-thumb");
    const lines = document.getElementById("explore-lines");
    const mark = document.getElementById("explore-mark");
    const side = Number(svg.dataset.thumb), columns = Number(svg.dataset.columns);
    const cells = Array.from(svg.querySelectorAll("circle.cell"), function (circle, index) {
      const title = circle.querySelector("title");
      const words = title.textContent.split("\n");
      title.remove(); // the panel takes the place of the browser's own hint
      return { circle, index, words, x: Number(circle.getAttribute("cx")), y: Number(circle.getAttribute("cy")) };
    });
    let chosen = null;
    panel.hidden = false;

    function visible(cell) { return getComputedStyle(cell.circle).display !== "none"; }

    function show(cell) {
      chosen = cell;
      thumb.setAttribute("viewBox", [side * (cell.index % columns), side * Math.floor(cell.index / columns), side, side].join(" "));
      thumb.setAttribute("aria-label", "Photograph of the cell, " + cell.words[0]);
      thumb.style.visibility = "visible";
      lines.replaceChildren(...cell.words.map(function (line) {
        const part = document.createElement("div");
        part.textContent = line;
        return part;
      }));
      mark.setAttribute("cx", cell.x);
      mark.setAttribute("cy", cell.y);
      mark.style.visibility = "visible";
    }

    function nearest(x, y, reach, allowed) {
      let best = null, least = reach * reach;
      for (const cell of cells) {
        const far = (cell.x - x) ** 2 + (cell.y - y) ** 2;
        if (far < least && (!allowed || allowed(cell)) && visible(cell)) { best = cell; least = far; }
      }
      return best;
    }

    svg.addEventListener("pointermove", function (event) {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const cell = nearest(at.x, at.y, REACH);
      if (cell && cell !== chosen) show(cell);
    });

    const STEPS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    svg.addEventListener("keydown", function (event) {
      const step = STEPS[event.key];
      if (!step) return;
      event.preventDefault();
      if (!chosen || !visible(chosen)) { const first = cells.find(visible); if (first) show(first); return; }
      const from = chosen;
      const next = nearest(from.x, from.y, Infinity, function (cell) {
        const dx = cell.x - from.x, dy = cell.y - from.y;
        const along = dx * step[0] + dy * step[1], across = Math.abs(dx * step[1]) + Math.abs(dy * step[0]);
        return along > 0 && across <= along;
      });
      if (next) show(next);
    });
    svg.addEventListener("focus", function () { if (!chosen) { const first = cells.find(visible); if (first) show(first); } });
  }

  function offerCopy(button) {
    const source = document.getElementById(button.dataset.copy);
    const label = button.textContent;
    button.hidden = false;
    button.addEventListener("click", async function () {
      let copied = true;
      try {
        await navigator.clipboard.writeText(source.innerText);
      } catch (refused) {
        getSelection().selectAllChildren(source);
        copied = document.execCommand("copy");
      }
      button.textContent = copied ? "Copied" : "Selected: copy it with Ctrl+C";
      setTimeout(function () { button.textContent = label; }, 2500);
    });
  }
})();
