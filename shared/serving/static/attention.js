// Where the model attends: the tokens of an answer to choose from, and the map over the image.

import { readAttention } from "./api.js";
import { element, make } from "./dom.js";
import { clearHeat, drawHeat, meanMap, summarize } from "./heatmap.js";

// What is in view: { tokens, images, choice }, where the choice is a token, or null for the whole answer.
let shown = null;

const percent = value => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;

/** Add the answer's tokens below it, as radio buttons that choose whose attention the image shows. */
export async function showTokens(turn, messages, answer) {
  let attention;
  try {
    attention = await readAttention(messages, answer);
  } catch (error) {
    turn.append(make("p", { className: "note", textContent: `No attention to show: ${error.message}` }));
    return;
  }
  if (!turn.isConnected) return; // the image has changed meanwhile
  const name = `token-${element("log").children.length}`;
  const list = make("div", { className: "list" });
  [null, ...attention.tokens.keys()].forEach(choice => {
    const text = choice === null ? "whole answer" : attention.tokens[choice] || "·";
    const id = `${name}-${choice ?? "all"}`;
    const radio = make("input", { type: "radio", name, id, className: "visually-hidden", checked: choice === null });
    const label = make("label", { htmlFor: id, textContent: text.trim() || "␣" });
    radio.addEventListener("change", () => select(attention, choice, name));
    radio.addEventListener("focus", () => { radio.checked = true; select(attention, choice, name); });
    label.addEventListener("mouseenter", () => draw(attention, choice));
    label.addEventListener("mouseleave", redraw);
    list.append(radio, label);
  });
  turn.append(make("fieldset", { className: "tokens" },
    make("legend", { textContent: "Attention while generating" }), list));
  select(attention, null, name);
}

function select(attention, choice, name) {
  // Only one map is in view, so no token of another answer stays selected.
  for (const radio of element("log").querySelectorAll("input[type=radio]:checked")) {
    if (radio.name !== name) radio.checked = false;
  }
  showAttention({ ...attention, choice });
}

function showAttention(attention) {
  shown = attention;
  element("attention").hidden = !shown;
  redraw();
}

/** Remove the attention from the image. */
export function hideAttention() {
  showAttention(null);
}

/** Draw the attention in view again, after the image or the window has changed. */
export function redraw() {
  if (shown) draw(shown, shown.choice);
  else clearHeat(element("heat"));
}

function draw(attention, choice) {
  const { region, weights } = attention.images[0];
  const map = choice === null ? meanMap(weights) : weights[choice];
  const { total, largest, row, column, rows, columns } = summarize(map);
  element("legend-high").textContent = `${percent(largest)} per patch`;
  element("attention-text").textContent =
    `${choice === null ? "On average over the answer" : `While generating “${attention.tokens[choice].trim()}”`}, ` +
    `${percent(total)} of the attention is on the image. The strongest of ${rows} × ${columns} patches is in row ` +
    `${row}, column ${column}. Mean over all layers and heads.`;
  const visible = element("show-heat").checked;
  element("legend").hidden = !visible;
  if (visible) drawHeat(element("heat"), map, region);
  else clearHeat(element("heat"));
}

element("show-heat").addEventListener("change", redraw);
window.addEventListener("resize", redraw);
