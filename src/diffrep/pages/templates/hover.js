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
  const show = (dot) => {
    const i = Number(dot.dataset.i);
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
  map.addEventListener("pointerleave", () => (tip.hidden = true));
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
