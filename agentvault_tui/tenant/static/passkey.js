"use strict";
// Asks the device for a passkey, and sends its answer with the form it belongs to.
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
