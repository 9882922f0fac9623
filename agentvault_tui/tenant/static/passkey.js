"use strict";
// Asks the device for a passkey, and sends its answer with the form it belongs to;
// counts down, and looks again for what came of an answer.
const bytes = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

function options(form) {
  const asked = JSON.parse(form.dataset.options);
  asked.challenge = bytes(asked.challenge);
  if (asked.user) asked.user.id = bytes(asked.user.id);
  for (const one of [...(asked.allowCredentials || []), ...(asked.excludeCredentials || [])])
    one.id = bytes(one.id);
  return { publicKey: asked };
}

function answer(credential) {
  const response = {};
  for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature"])
    if (credential.response[name]) response[name] = text(credential.response[name]);
  return JSON.stringify({
    id: credential.id, rawId: text(credential.rawId), type: credential.type,
    response, clientExtensionResults: {},
  });
}

for (const form of document.querySelectorAll("form[data-options]")) {
  if (!window.PublicKeyCredential) continue;
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const act = form.dataset.act === "create" ? "create" : "get";
    try {
      const credential = await navigator.credentials[act](options(form));
      form.elements.credential.value = answer(credential);
      form.submit();
    } catch (error) {
      const told = form.querySelector("[data-told]");
      told.textContent = `No passkey was used (${error.name}). Try again.`;
      told.hidden = false;
    }
  });
}

const pad = (number) => String(number).padStart(2, "0");

function countDown() {
  for (const time of document.querySelectorAll("time[data-ends]")) {
    const left = Math.max(Math.floor((Date.parse(time.dataset.ends) - Date.now()) / 1000), 0);
    time.textContent = `${Math.floor(left / 60)}:${pad(left % 60)}`;
  }
}

async function lookAgain() {
  const main = document.querySelector("main[data-again]");
  if (!main) return;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [now, next] = [document, page].map((one) => one.querySelector("main [data-status]"));
    if (!next || next.dataset.status !== now.dataset.status) location.reload();
  } catch (error) {
    // The network was away for a moment: the next look may find it.
  }
  setTimeout(lookAgain, 2000);
}

if (document.querySelector("time[data-ends]")) setInterval(countDown, 1000);
setTimeout(lookAgain, 1000);
