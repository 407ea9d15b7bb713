// Requests to the service, and its errors as sentences that tell what to do.

const KEY_NAME = "api-key";
const LOST = "The connection to the service was lost. Check that it is still running, then try again.";

/** An error with a message for people. `code` is the service's; `retry` tells whether the same request may succeed. */
export class ServiceError extends Error {
  constructor(message, { code = "", status = 0, retry = false } = {}) {
    super(message);
    Object.assign(this, { code, status, retry });
  }
}

/** Use an API key for all further requests of this tab. */
export function setKey(key) {
  sessionStorage.setItem(KEY_NAME, key);
}

function headers(json) {
  const key = sessionStorage.getItem(KEY_NAME);
  return { ...(json && { "content-type": "application/json" }), ...(key && { authorization: `Bearer ${key}` }) };
}

// What a person should read instead of, or before, the service's own message.
const ADVICE = {
  body_too_large: "The image file is too large for this service.",
  too_many_pixels: "The image has too many pixels for this service.",
  too_many_requests: "The service is busy with other requests. Try again in a moment.",
  starting: "The service is starting. Try again in a moment.",
  stopping: "The service is shutting down. Try again when it is back.",
  too_slow: "The service is busy, and the answer was not finished in time. Try again later.",
  context_length_exceeded: "The conversation is longer than the model's context. Begin a new one.",
};
const WITH_DETAILS = ["body_too_large", "too_many_pixels"];

async function errorOf(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch { /* a proxy's page, which is not for people */ }
  return serviceError(error, response.status);
}

function serviceError(error, status) {
  if (status === 401 || status === 403) {
    return new ServiceError("This service needs an API key. Enter it below.", { status, retry: true });
  }
  const code = error.code ?? "";
  const details = error.message ?? `The service answered with status ${status}.`;
  const sentence = details.charAt(0).toUpperCase() + details.slice(1) + (/[.!?]$/.test(details) ? "" : ".");
  const message = WITH_DETAILS.includes(code) ? `${ADVICE[code]} ${sentence}` : ADVICE[code] ?? sentence;
  return new ServiceError(message, { code, status, retry: status === 429 || status >= 500 });
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(LOST, { retry: true });
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

/** Return what the service states about its model. */
export async function readModel() {
  return (await request("model", { headers: headers(false), cache: "no-store" })).json();
}

/** Return where the model attended while it generated `answer`. */
export async function readAttention(messages, answer) {
  const body = JSON.stringify({ messages, answer });
  return (await request("attention", { method: "POST", headers: headers(true), body })).json();
}

/** Yield the texts of an answer as they arrive. Throws ServiceError, also for an answer that was cut off. */
export async function* streamAnswer(model, messages, signal) {
  const body = JSON.stringify({ model, messages, stream: true });
  const response = await request("v1/chat/completions", { method: "POST", headers: headers(true), body, signal });
  const reader = response.body.getReader(), decoder = new TextDecoder();
  let buffer = "", complete = false;
  while (true) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServiceError(LOST, { retry: true });
    }
    if (chunk.done && complete) return;
    if (chunk.done) throw new ServiceError(LOST, { retry: true }); // without [DONE] the answer is not complete
    buffer += decoder.decode(chunk.value, { stream: true });
    const events = buffer.split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      complete = data === "[DONE]";
      if (complete) break;
      const content = JSON.parse(data);
      if (content.error) throw serviceError(content.error, 503);
      const text = content.choices[0]?.delta.content;
      if (text) yield text;
    }
  }
}
