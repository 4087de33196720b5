/** The server's interface /api/v1: requests, and the events of jobs. */

import { Sentence } from "./errors.js";

const BASE = "/api/v1";
const POLL = 1000; // milliseconds between questions while there is no event stream
const OVER = new Set(["done", "failed", "cancelled", "lost"]);

export class ApiError extends Sentence {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

let askToken = null; // shows the form of the token; resolves when the server accepted it
export function onToken(ask) {
  askToken = ask;
}

/** JSON in, JSON out. Raises ApiError with the server's sentence. */
export async function call(method, path, body, again = true, signal = undefined) {
  const options = { method, headers: {}, credentials: "same-origin", signal };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(BASE + path, options);
  } catch {
    throw new ApiError("The server does not answer. Is it still running?", 0);
  }
  if (answer.status === 401 && again && askToken) {
    await askToken();
    return call(method, path, body, false, signal);
  }
  const text = await answer.text();
  const value = text ? parsed(text) : null;
  if (!answer.ok) throw new ApiError(sentence(value, answer), answer.status);
  return value;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function sentence(value, answer) {
  if (typeof value?.error === "string") return value.error;
  if (typeof value?.detail === "string") return value.detail;
  return `The server answered ${answer.status} ${answer.statusText}.`;
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);
export const patch = (path, body) => call("PATCH", path, body);
export const remove = (path) => call("DELETE", path);

/** A request of which the newest counts: an earlier one is given up, which stops it in the server
 * too. Resolves with null where a newer one was sent meanwhile. */
export function newest(path) {
  let before = null;
  return async (body) => {
    before?.abort();
    const now = new AbortController();
    before = now;
    try {
      return await call("POST", path, body, true, now.signal);
    } catch (error) {
      if (now.signal.aborted) return null;
      throw error;
    }
  };
}
export const login = (token) => call("POST", "/login", { token }, false);
export const finished = (job) => OVER.has(job.state);
export const previewUrl = (job) => `${BASE}/jobs/${job.id}/preview.jpg?v=${job.preview}`;
export const pictureUrl = (id) => `${BASE}/pictures/${id}.png`;
export const thumbUrl = (id) => `${BASE}/pictures/${id}.thumb.webp`;

// ---------------------------------------------------------------- events

const jobs = new Map(); // id → the latest state
const listeners = new Map(); // id → functions
const everywhere = new Set();
let source = null;
let timer = 0;

function heard(job) {
  const before = jobs.get(job.id);
  if (before && finished(before)) return;
  jobs.set(job.id, job);
  for (const listen of listeners.get(job.id) ?? []) listen(job);
  for (const listen of everywhere) listen(job);
  if (finished(job)) listeners.delete(job.id);
}

/** Opens the stream of all jobs' events. Without one the open jobs are asked for by time. */
export function listen() {
  source = new EventSource(`${BASE}/events`);
  for (const kind of [
    "job",
    "queued",
    "running",
    "progress",
    "preview",
    "done",
    "failed",
    "cancelled",
    "lost",
  ]) {
    source.addEventListener(kind, (event) => {
      const job = parsed(event.data);
      if (job?.id) heard(job);
    });
  }
  source.addEventListener("message", (event) => {
    const job = parsed(event.data);
    if (job?.id) heard(job);
  });
  clearInterval(timer);
  timer = setInterval(poll, POLL);
}

const asked = new Map(); // id → when it was asked for

async function poll() {
  const streaming = source?.readyState === EventSource.OPEN;
  for (const [id] of listeners) {
    // a stream can lose an event; each open job is asked for now and then
    if (streaming && Date.now() - (asked.get(id) ?? 0) < 5 * POLL) continue;
    asked.set(id, Date.now());
    try {
      heard(await get(`/jobs/${id}`));
    } catch (error) {
      if (error.status === 404) heard({ id, state: "lost", error: error.message });
    }
  }
}

export function onJobs(listener) {
  everywhere.add(listener);
}

/** Calls `listener` with each state of the job. */
export function watch(job, listener) {
  if (!listeners.has(job.id)) listeners.set(job.id, new Set());
  listeners.get(job.id).add(listener);
  asked.set(job.id, Date.now());
  const known = jobs.get(job.id);
  if (known && (finished(known) || known.progress >= (job.progress ?? 0))) listener(known);
  else heard(job);
  if (known && finished(known)) listeners.delete(job.id);
}

/** Starts a job and resolves with its last state. `listener` gets every state. */
export async function start(path, body, listener = () => {}) {
  const job = await post(path, body);
  return new Promise((resolve) => {
    watch(job, (state) => {
      listener(state);
      if (finished(state)) resolve(state);
    });
  });
}

export const cancel = (job) => remove(`/jobs/${job.id}`);
