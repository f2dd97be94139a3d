"use strict";
// Refreshes the parts of a page that are marked data-part from the address in data-live. The page
// says the same without it. What somebody has the focus in, or has marked, is left as it is.
(() => {
  const SECONDS = 3;
  const main = document.querySelector("[data-live]");
  if (!main) return;

  const isInUse = (part) => {
    const marked = document.getSelection();
    return part.contains(document.activeElement) ||
      (marked && !marked.isCollapsed && part.contains(marked.anchorNode));
  };

  const show = (text) => {
    const found = new DOMParser().parseFromString(text, "text/html");
    for (const fresh of found.querySelectorAll("[data-part]")) {
      const shown = document.getElementById(fresh.id);
      if (shown && shown.innerHTML !== fresh.innerHTML && !isInUse(shown)) {
        const boxes = [...shown.querySelectorAll(".wide")].map((box) => box.scrollLeft);
        shown.replaceChildren(...fresh.childNodes);
        shown.querySelectorAll(".wide").forEach((box, at) => { box.scrollLeft = boxes[at] || 0; });
      }
    }
  };

  const refresh = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(main.dataset.live, {credentials: "same-origin"});
        if (answer.ok) show(await answer.text());
      } catch {
        const line = document.getElementById("now");
        const told = "The service does not answer; this is what it said last.";
        if (line && line.textContent !== told) line.textContent = told;
      }
    }
    setTimeout(refresh, SECONDS * 1000);
  };
  setTimeout(refresh, SECONDS * 1000);
})();
