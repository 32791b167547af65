"use strict";
// The map of codes: a picture and a name beside the dot that is pointed at, touched or reached by the arrow keys.
for (const map of document.querySelectorAll("svg[data-map]")) {
  const sprite = document.getElementById(map.dataset.map);
  const dots = [...map.querySelectorAll(".dot")];
  const said = dots.map((dot) => dot.querySelector("title").textContent);
  dots.forEach((dot) => dot.querySelector("title").remove());
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  document.body.append(tip);
  const picture = document.createElement("i");
  const words = document.createElement("span");
  tip.append(picture, words);
  const at = dots.map((dot) => [Number(dot.getAttribute("cx")), Number(dot.getAttribute("cy"))]);
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  let here = 0;
  const beside = ([across, down]) => {  // the nearest dot in this direction, or the same one where there is none
    let nearest = here, least = Infinity;
    at.forEach(([x, y], i) => {
      const dx = x - at[here][0], dy = y - at[here][1], ahead = dx * across + dy * down;
      const far = Math.hypot(dx, dy);
      if (ahead > 0 && ahead >= Math.abs(dx * down + dy * across) && far < least) [nearest, least] = [i, far];
    });
    return dots[nearest];
  };
  const hide = () => {
    tip.hidden = true;
    dots[here]?.classList.remove("here");
  };
  const show = (dot) => {
    const i = Number(dot.dataset.i);
    dots[here].classList.remove("here");
    here = i;
    dot.classList.add("here");
    if (sprite) {
      const width = Number(sprite.dataset.width), height = Number(sprite.dataset.height);
      const zoom = Math.max(1, Math.round(96 / Math.max(width, height)));
      const rows = Math.ceil(dots.length / 25);
      picture.style.width = width * zoom + "px";
      picture.style.height = height * zoom + "px";
      picture.style.backgroundImage = `url(${sprite.src})`;
      picture.style.backgroundSize = `${25 * width * zoom}px ${rows * height * zoom}px`;
      picture.style.backgroundPosition = `-${(i % 25) * width * zoom}px -${Math.floor(i / 25) * height * zoom}px`;
    }
    words.textContent = said[i];
    tip.hidden = false;
    const box = dot.getBoundingClientRect();
    const left = Math.min(box.right + 10, innerWidth - tip.offsetWidth - 8);
    const top = Math.min(Math.max(8, box.top - tip.offsetHeight / 2), innerHeight - tip.offsetHeight - 8);
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = top + "px";
  };
  map.addEventListener("pointerover", (event) => event.target.matches(".dot") && show(event.target));
  map.addEventListener("click", (event) => event.target.matches(".dot") && show(event.target));
  map.addEventListener("pointerleave", hide);
  map.tabIndex = 0;
  map.setAttribute("role", "application");  // so that a screen reader leaves the arrow keys to it
  map.addEventListener("focus", () => dots.length && show(dots[here]));
  map.addEventListener("blur", hide);
  map.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    if (!(event.key in steps) || !dots.length) return;
    event.preventDefault();
    show(beside(steps[event.key]));
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
