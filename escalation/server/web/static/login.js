// Passkeys: the one thing that a form cannot do. Without this script passwords work as before.
// A button says in its data where the challenge comes from and where the answer goes; nothing else does.
"use strict";

const bytes = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (each) => each.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

async function post(path, body, csrf) {
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  if (csrf) headers["X-CSRF-Token"] = csrf;
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const said = await answer.json();
  if (!answer.ok) {
    if (said.error.code === "not_fresh") {
      location.assign("/login/again?next=" + encodeURIComponent(location.pathname));
    }
    throw new Error(said.error.message);
  }
  return said;
}

function readable(options) {
  const found = { ...options, challenge: bytes(options.challenge) };
  for (const list of ["allowCredentials", "excludeCredentials"]) {
    if (options[list]) found[list] = options[list].map((each) => ({ ...each, id: bytes(each.id) }));
  }
  if (options.user) found.user = { ...options.user, id: bytes(options.user.id) };
  return found;
}

async function make(options) {
  const made = await navigator.credentials.create({ publicKey: readable(options) });
  return {
    id: text(made.rawId),
    client_data: text(made.response.clientDataJSON),
    attestation: text(made.response.attestationObject),
  };
}

async function use(options) {
  const used = await navigator.credentials.get({ publicKey: readable(options) });
  return {
    id: text(used.rawId),
    client_data: text(used.response.clientDataJSON),
    authenticator_data: text(used.response.authenticatorData),
    signature: text(used.response.signature),
  };
}

// An approval that is signed: the challenge is the SHA-256 of the document, computed here, and the document
// must be of what this page shows.
async function sign(button) {
  const { entry, csrf } = button.dataset;
  const form = button.form;
  if (!form.reportValidity()) return;
  const { reason, digest } = Object.fromEntries(new FormData(form));
  const set_aside = {};
  for (const [name, why] of new FormData(form)) {
    if (name.startsWith("override.")) set_aside[name.slice("override.".length)] = why;
  }
  const at = "/api/v1/queue/" + encodeURIComponent(entry);
  const { document: whole } = await post(at + "/document", { reason, set_aside }, csrf);
  const signed = JSON.parse(whole);
  const shown = [...document.querySelectorAll(".command code")].map((each) => each.textContent);
  if (signed.digest !== digest || JSON.stringify(signed.action.argv) !== JSON.stringify(shown)) {
    throw new Error("what would be signed is not what this page shows; read it again");
  }
  const challenge = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(whole));
  const { id, ...answer } = await use({ challenge: text(challenge), userVerification: "required" });
  const signature = { kind: "webauthn", credential_id: id, ...answer };
  await post(at + "/approve", { reason, digest, set_aside, signed: { document: whole, signature } }, csrf);
  location.reload();
}

async function pressed(button) {
  if (button.dataset.passkey === "sign") return sign(button);
  const { passkey, begin, end, next, csrf } = button.dataset;
  const asked = await post(begin, {}, csrf);
  const body = { handshake: asked.handshake, answer: await (passkey === "make" ? make : use)(asked.options) };
  if (passkey === "make") body.label = document.querySelector("[data-passkey-label]").value;
  else body.next = next;
  const onward = await post(end, body, csrf);
  location.assign(onward.next);
}

// Who has no passkey of this place is not offered to sign with one.
async function offers(button) {
  if (button.dataset.passkey !== "sign") return true;
  const answer = await fetch("/api/v1/me/passkeys", { headers: { Accept: "application/json" } });
  return answer.ok && (await answer.json()).lines.some((line) => line.split(" ").includes(location.origin));
}

if (window.PublicKeyCredential) {
  for (const button of document.querySelectorAll("[data-passkey]")) {
    button.hidden = !(await offers(button));
    button.addEventListener("click", async () => {
      const said = document.querySelector("[data-passkey-said]");
      said.hidden = true;
      button.disabled = true;
      try {
        await pressed(button);
      } catch (error) {
        said.textContent = "Nothing was done: " + (error.name === "NotAllowedError" ? "no passkey was given." : error.message + ".");
        said.hidden = false;
      } finally {
        button.disabled = false;
      }
    });
  }
}

// The code of an invitation stands in the fragment of its link, which browsers send to nobody.
const code = document.querySelector("[data-from-fragment]");
if (code && location.hash.length > 1) {
  code.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
}

// The way back from a provider of identities: what it gave is sent on from a page of ours.
const onward = document.querySelector("form[data-send]");
if (onward) {
  history.replaceState(null, "", location.pathname);
  onward.submit();
}
