// Keeps pages fresh and hears keys. Everything that decides is a form and works without this file.
"use strict";
(() => {
  const body = document.body;
  const kind = body.dataset.page;
  const ahead = Number(body.dataset.now) - Date.now(); // the orchestrator's clock counts, not this one
  const by = (id) => document.getElementById(id);

  // Countdowns -------------------------------------------------------------------------------------

  const left = (seconds) => {
    const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
    const at = Math.max(0, units.findIndex(([, size]) => seconds >= size));
    const [unit, size] = seconds < 1 ? units[3] : units[at];
    const whole = Math.floor(seconds / size);
    const next = units[units.findIndex(([name]) => name === unit) + 1];
    const rest = next ? Math.floor((seconds % size) / next[1]) : 0;
    return `${whole} ${unit}` + (rest ? ` ${rest} ${next[0]}` : "");
  };
  const count = () => {
    for (const each of document.querySelectorAll("time[data-until]")) {
      const seconds = (Date.parse(each.dateTime) - Date.now() - ahead) / 1000;
      const words = seconds > 0 ? `in ${left(seconds)}` : "the time is over";
      if (each.textContent !== words) each.textContent = words;
      each.classList.toggle("soon", seconds < 600);
    }
  };
  count();
  setInterval(count, 1000);

  // Live -------------------------------------------------------------------------------------------

  const news = by("news");
  const waiting = new Set(); // ids that are new and not shown yet
  const held = () => document.querySelector("#rows > :focus-within, #rows > :hover");

  const merge = (fresh) => {
    const rows = by("rows"), other = fresh.getElementById("rows");
    if (!rows || !other) return;
    const anchor = held() || [...rows.children].find((row) => row.getBoundingClientRect().top >= 0);
    const before = anchor ? anchor.getBoundingClientRect().top : 0;
    const next = new Map([...other.querySelectorAll("[data-id]")].map((row) => [row.dataset.id, row]));
    const shown = new Set();
    for (const row of rows.querySelectorAll("[data-id]")) {
      shown.add(row.dataset.id);
      const now = next.get(row.dataset.id);
      if (!now) {
        if (!row.classList.contains("gone")) {
          row.classList.add("gone");
          const words = document.createElement("strong");
          words.textContent = "no longer in this list";
          row.querySelector(".marks").append(words); // where it makes the row no higher
        }
      } else if (now.innerHTML !== row.innerHTML || row.className !== now.className) {
        row.className = now.className; // the row itself stays, and with it its place and the focus in it
        const inside = [...row.querySelectorAll("a")].indexOf(document.activeElement);
        row.replaceChildren(...document.importNode(now, true).childNodes);
        if (inside >= 0) (row.querySelectorAll("a")[inside] || row.querySelector("a")).focus({ preventScroll: true });
      }
    }
    waiting.clear();
    for (const id of next.keys()) if (!shown.has(id)) waiting.add(id);
    const words = waiting.size ? `${waiting.size} new, ` : "";
    if (news && news.dataset.words !== words) {
      news.dataset.words = words;
      news.textContent = words;
      if (words) {
        const show = document.createElement("a");
        show.href = location.href;
        show.textContent = "show";
        news.append(show);
      }
    }
    const total = by("count"), counted = fresh.getElementById("count");
    if (total && counted) total.textContent = counted.textContent;
    document.title = fresh.title;
    count();
    if (anchor) {
      const moved = anchor.getBoundingClientRect().top - before;
      if (moved) scrollBy(0, moved);
    }
  };

  let busy = false, again = false;
  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    again = false;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
      if (answer.ok) merge(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch { /* the stream says that it is gone */ }
    setTimeout(() => { busy = false; if (again) refresh(); }, 1000);
  };

  // What was looked at is what may be decided: once it changed, its buttons stay off until it is read again.
  const stale = () => {
    by("changed").hidden = false;
    for (const button of document.querySelectorAll("#decide button")) button.disabled = true;
  };
  const watched = (digest, state, approvers) => {
    const card = document.querySelector("article.entry").dataset;
    if (digest !== card.digest || state !== card.state || String(approvers) !== card.approvers) stale();
  };
  const changed = (entry) => {
    if (entry.id === document.querySelector("article.entry").dataset.id) {
      watched(entry.digest, entry.state, entry.approvers.length);
    }
  };
  const look = async () => {
    try {
      const answer = await fetch(location.pathname, { redirect: "error" });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const card = fresh.querySelector("article.entry").dataset;
      watched(card.digest, card.state, card.approvers);
    } catch { /* the stream says that it is gone */ }
  };

  const live = by("live");
  let pause = 1000;
  const watch = () => {
    const stream = new EventSource("/live");
    stream.onopen = () => {
      live.textContent = "Live.";
      pause = 1000;
      if (kind === "queue") refresh(); else look();
    };
    stream.addEventListener("queue", (event) => {
      if (kind === "queue") refresh(); else changed(JSON.parse(event.data));
    });
    stream.onerror = () => {
      live.textContent = "Not live: trying again.";
      if (stream.readyState !== EventSource.CLOSED) return;
      setTimeout(watch, pause); // refused: too many watch, or the orchestrator is away
      pause = Math.min(2 * pause, 60000);
    };
  };
  if (kind === "queue" || kind === "entry") watch();
  if (kind === "queue") setInterval(refresh, 60000);

  // A form is sent once ----------------------------------------------------------------------------

  for (const form of document.querySelectorAll("form[method=post]")) {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = "yes";
    });
  }
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  // Keys -------------------------------------------------------------------------------------------

  const links = () => [...document.querySelectorAll("#rows > li > h2 > a")];
  const move = (by) => {
    const all = links();
    if (!all.length) return;
    const row = document.activeElement.closest("#rows > li");
    const at = all.findIndex((link) => row && row.contains(link));
    const next = all[Math.min(all.length - 1, Math.max(0, at + by))];
    next.focus();
    next.closest("li").scrollIntoView({ block: "nearest" });
  };
  const go = (field) => {
    const row = document.activeElement.closest("#rows > li");
    if (row) location.href = `${row.querySelector("h2 a").getAttribute("href")}#${field}`;
    const found = by(field);
    if (!found) return;
    for (let each = found; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
    found.focus();
    found.scrollIntoView({ block: "center" });
  };
  const keys = {
    j: () => move(1),
    k: () => move(-1),
    A: () => go("approve-reason"),
    r: () => go("reject-reason"),
    a: () => go("acknowledge-for"),
    s: () => go("snooze-for"),
    "/": () => { const field = by("f-host"); if (field) field.focus(); else location.href = "/#f-host"; },
    "?": () => { location.href = "/help"; },
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    if (event.key === "Escape" && typing) { typing.blur(); return; }
    if (typing || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });
})();
