// What the page asks of the server.

export class Refused extends Error {}

async function answer(response) {
  const found = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) throw new Refused(found?.error ?? `the server answered ${response.status}`);
  return found;
}

const SILENT = "the server does not answer";
const ask = (path, options) => fetch(path, options).then(answer, () => { throw new Refused(SILENT); });
const tell = (path, what) => ask(path, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(what ?? {}),
});

export const options = () => ask("/api/options");
export const sample = () => tell("/api/sample");
export const upscale = (id, answers) => tell(`/api/jobs/${id}/upscale`, answers);
export const preview = (id, answers) => tell(`/api/jobs/${id}/preview`, answers);
export const cancel = (id) => tell(`/api/jobs/${id}/cancel`);
export const remove = (id) => ask(`/api/jobs/${id}`, { method: "DELETE" });
export const address = (job, role, number = job.version) => `/api/jobs/${job.id}/${role}?v=${number}`;

export const download = (job) => `${address(job, "result")}&download`;

// Sends a file; `progress` is told the share that was sent. Returns the job's promise and a way to stop.
export function send(file, progress) {
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onload = () => {
      let found = null;
      try { found = JSON.parse(request.responseText); } catch { /* the status says enough */ }
      if (request.status === 201) resolve(found);
      else reject(new Refused(found?.error ?? `the server answered ${request.status}`));
    };
    request.onerror = () => reject(new Refused(`${file.name} could not be sent: the server hung up`));
    request.onabort = () => reject(new Refused(""));
  });
  request.open("POST", `/api/files?name=${encodeURIComponent(file.name)}`);
  request.send(file);
  return { done, stop: () => request.abort() };
}

const PAUSES = { shown: 1000, hidden: 5000 }; // milliseconds, where the server is asked again and again

// Calls `news` with all jobs whenever something changes, and `state` with why it is not heard of: "" where it is.
// A page that nobody sees asks now and then: browsers keep few connections, and events take one each.
export function listen(news, state) {
  let source = null;
  let turn = 0;
  const poll = async (pause, mine) => {
    try {
      news(await ask("/api/jobs"));
      state("");
    } catch (error) { state(error.message); }
    setTimeout(() => mine === turn && poll(pause, mine), pause);
  };
  const begin = () => {
    turn += 1;
    source?.close();
    if (document.hidden) return void poll(PAUSES.hidden, turn);
    if (!("EventSource" in window)) return void poll(PAUSES.shown, turn);
    source = new EventSource("/api/events");
    source.onopen = () => state("");
    source.onmessage = (event) => news(JSON.parse(event.data));
    source.onerror = ({ target }) => {
      if (target.readyState === EventSource.CLOSED) poll(PAUSES.shown, turn); // which finds out why
      else state(SILENT); // it tries again by itself
    };
  };
  document.addEventListener("visibilitychange", begin);
  begin();
}
