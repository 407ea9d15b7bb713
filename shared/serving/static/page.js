// The page: choose an image, ask, read the answer as it arrives, see where the model attends.

import { readModel, ServiceError, setKey, streamAnswer } from "./api.js";
import { hideAttention, redraw, showTokens } from "./attention.js";
import { element, make } from "./dom.js";

const POLL_MS = 1000;
const SMALL_IMAGE = 200; // pixels; an image with smaller sides is enlarged without smoothing, pixel by pixel

// model    what the service states about it
// image    { url, description } of the current image, or null
// turns    the completed turns about this image: { question, answer }
// running  the AbortController of the answer in progress, or null
// retry    what "Try again" does, or null
const state = { model: null, image: null, turns: [], running: null, retry: null };

// ── Building blocks ────────────────────────────────────────────────────────────────────────────────────────────────

function item(label, onClick, properties = {}) {
  const button = make("button", { type: "button", ...properties });
  button.append(label);
  button.addEventListener("click", onClick);
  return make("li", {}, button);
}

function showError(error, retry = null) {
  element("error-text").textContent = error.message;
  state.retry = error.retry ? retry : null;
  element("retry").hidden = !state.retry;
  element("restart").hidden = error.code !== "context_length_exceeded";
  element("key-form").hidden = error.status !== 401 && error.status !== 403;
  element("error").hidden = false;
  element("error").scrollIntoView({ block: "nearest" }); // on a phone the image and the message are far apart
}

function hideError() {
  for (const id of ["error", "key-form"]) element(id).hidden = true;
}

// ── The model ──────────────────────────────────────────────────────────────────────────────────────────────────────

async function start() {
  try {
    state.model = await readModel();
  } catch (error) {
    showError(error, start);
    if (error.code === "starting") setTimeout(start, POLL_MS);
    return;
  }
  hideError();
  showModel(state.model);
}

function showModel(model) {
  element("model-name").textContent = model.name;
  element("scope").textContent = model.scope;
  element("scope").hidden = !model.scope;
  element("image-panel").hidden = !model.accepts_images;
  element("main").classList.toggle("text-only", !model.accepts_images);
  const megabytes = Math.floor(largestFile() / 2 ** 20 * 10) / 10;
  element("limits").textContent =
    `Up to ${megabytes} MB and ${Math.floor(model.limits.pixels / 1e6)} million pixels.`;
  element("samples").replaceChildren(...model.samples.map((sample, index) => {
    const image = make("img", { src: sample.image, alt: `Sample ${index + 1}: ${sample.description}` });
    return item(image, () => chooseSample(index), { ariaPressed: "false" });
  }));
  element("samples-area").hidden = !model.samples.length;
  if (!model.accepts_questions) {
    for (const id of ["question-label", "question"]) element(id).hidden = true;
    element("question").required = false;
    element("send").textContent = "Describe the image";
  }
  element("question").disabled = element("send").disabled = false;
  element("turn-hint").textContent = model.follow_ups || !model.accepts_questions ? ""
    : "Each question is answered on its own: this model was not trained on earlier turns.";
  element("welcome").textContent = !model.accepts_images ? "Ask a question to begin."
    : model.samples.length ? "Choose a sample scene or an image of your own, then ask about it."
    : "Choose an image, then ask about it.";
  showSuggestions();
  element("main").removeAttribute("aria-busy");
}

/** The largest image file in bytes: base64 needs four characters for three bytes, and a question needs some room. */
function largestFile() {
  return Math.floor((state.model.limits.body_bytes - 65536) * 3 / 4);
}

function showSuggestions(sample = null) {
  const { accepts_images, accepts_questions, caption_prompt, questions } = state.model;
  const suggestions = accepts_questions ? [...(sample?.questions ?? questions)] : [];
  if (accepts_images && accepts_questions && state.image) suggestions.unshift(caption_prompt);
  element("suggestions").replaceChildren(...suggestions.map(text => item(text, () => ask(text))));
}

// ── The image ──────────────────────────────────────────────────────────────────────────────────────────────────────

function chooseSample(index) {
  const sample = state.model.samples[index];
  setImage(sample.image, `Sample ${index + 1}: ${sample.description}`);
  [...element("samples").querySelectorAll("button")].forEach((button, at) => { button.ariaPressed = at === index; });
  showSuggestions(sample);
}

async function chooseFile(file) {
  const { limits } = state.model;
  hideError();
  try {
    if (!file.type.startsWith("image/")) {
      throw new ServiceError(`“${file.name}” is not an image. Choose a file such as a JPEG or a PNG.`);
    }
    if (file.size > largestFile()) {
      throw new ServiceError(`“${file.name}” is too large: it has ${(file.size / 2 ** 20).toFixed(1)} MB, and at most ` +
        `${(largestFile() / 2 ** 20).toFixed(1)} MB are accepted. Choose a smaller image.`);
    }
    const url = await dataURL(file);
    const { width, height } = await sizeOf(url, file.name);
    if (width * height > limits.pixels) {
      throw new ServiceError(`“${file.name}” is too large: it has ${width} × ${height} pixels, and at most ` +
        `${Math.floor(limits.pixels / 1e6)} million are accepted. Choose a smaller image.`);
    }
    setImage(url, `Your image: ${file.name}`);
    showSuggestions();
  } catch (error) {
    showError(error);
  }
}

function dataURL(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new ServiceError(`“${file.name}” cannot be read. Choose it again.`));
    reader.readAsDataURL(file);
  });
}

async function sizeOf(url, name) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    throw new ServiceError(`“${name}” cannot be displayed as an image. Choose another file, such as a JPEG or a PNG.`);
  }
  return { width: image.naturalWidth, height: image.naturalHeight };
}

function setImage(url, description) {
  state.running?.abort();
  hideError();
  state.image = { url, description };
  newConversation();
  const image = element("image");
  image.onload = () => {
    image.classList.toggle("small-image", Math.max(image.naturalWidth, image.naturalHeight) < SMALL_IMAGE);
    redraw();
  };
  Object.assign(image, { src: url, alt: description });
  for (const button of element("samples").querySelectorAll("button")) button.ariaPressed = "false";
  element("stage").hidden = false;
  element("drop").classList.add("full");
  document.querySelector("label[for=file]").textContent = "Choose another image";
}

function newConversation() {
  state.turns = [];
  element("log").replaceChildren();
  element("welcome").hidden = state.image !== null;
  hideAttention();
}

// ── Questions and answers ──────────────────────────────────────────────────────────────────────────────────────────

function messagesFor(question) {
  const turns = state.model.follow_ups ? state.turns : [];
  const messages = turns.flatMap(turn => [
    { role: "user", content: turn.question }, { role: "assistant", content: turn.answer },
  ]);
  messages.push({ role: "user", content: question });
  if (state.image) {
    const image = { type: "image_url", image_url: { url: state.image.url } };
    messages[0] = { role: "user", content: [image, { type: "text", text: messages[0].content }] };
  }
  return messages;
}

async function ask(question) {
  if (state.running) return;
  if (state.model.accepts_images && !state.image) {
    showError(new ServiceError("Choose an image or a sample scene first, then ask about it."));
    return;
  }
  hideError();
  element("welcome").hidden = true;
  const messages = messagesFor(question);
  const answer = make("div", { className: "answer running" });
  const turn = make("div", { className: "turn" }, make("div", { className: "asked", textContent: question }), answer);
  element("log").append(turn);
  const running = state.running = new AbortController();
  setRunning(true);
  try {
    for await (const text of streamAnswer(state.model.name, messages, running.signal)) answer.append(text);
    const complete = answer.textContent;
    state.turns.push({ question, answer: complete });
    element("question").value = "";
    element("status").textContent = `Answer: ${complete}`;
    if (!complete) turn.append(make("p", { className: "note", textContent: "The answer is empty." }));
    else if (state.model.attention) showTokens(turn, messages, complete); // arrives later; the next question may begin
  } catch (error) {
    if (answer.textContent) turn.append(make("p", { className: "note", textContent: "This answer is not complete." }));
    else turn.remove();
    if (error.name !== "AbortError") showError(error, () => ask(question));
  } finally {
    answer.classList.remove("running");
    state.running = null;
    setRunning(false);
  }
}

function setRunning(running) {
  element("send").hidden = running;
  element("stop").hidden = !running;
  for (const button of element("suggestions").querySelectorAll("button")) button.disabled = running;
}

// ── Events ─────────────────────────────────────────────────────────────────────────────────────────────────────────

element("ask").addEventListener("submit", event => {
  event.preventDefault();
  const question = state.model.accepts_questions ? element("question").value.trim() : state.model.caption_prompt;
  if (question) ask(question);
});
element("stop").addEventListener("click", () => state.running?.abort());
document.addEventListener("keydown", event => {
  if (event.key === "Escape") state.running?.abort();
});
element("retry").addEventListener("click", () => { hideError(); state.retry?.(); });
element("restart").addEventListener("click", () => { hideError(); newConversation(); });
element("key-form").addEventListener("submit", event => {
  event.preventDefault();
  setKey(element("key").value);
  element("key").value = "";
  const retry = state.retry;
  hideError();
  retry?.();
});
element("file").addEventListener("change", event => {
  if (event.target.files[0]) chooseFile(event.target.files[0]);
  event.target.value = ""; // so that choosing the same file again is a change
});
for (const type of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(type, event => {
    event.preventDefault(); // a file dropped beside the area must not replace the page
    element("drop").classList.toggle("over", type === "dragover");
    const file = type === "drop" && event.dataTransfer.files[0];
    if (file && state.model?.accepts_images) chooseFile(file);
  });
}
document.addEventListener("paste", event => {
  const file = [...event.clipboardData.files].find(each => each.type.startsWith("image/"));
  if (file && state.model?.accepts_images) chooseFile(file);
});

start();
