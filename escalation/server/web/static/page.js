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
    settle(fresh, anchor, before);
  };

  // What stands around the list or the incident is brought up to date, and what was looked at stays in place.
  const settle = (fresh, anchor, before) => {
    for (const id of ["count", "since", "read"]) {
      const now = fresh.getElementById(id);
      if (now && by(id)) by(id).replaceChildren(...document.importNode(now, true).childNodes);
    }
    document.title = fresh.title;
    count();
    if (anchor) {
      const moved = anchor.getBoundingClientRect().top - before;
      if (moved) scrollBy(0, moved);
    }
  };

  // The page of an incident holds nothing to press but links: each part of it is renewed where it stands.
  const part = (name) => document.querySelector(`[data-part="${name}"]`);
  const renew = (fresh) => {
    const old = document.querySelector("article.whole"), now = fresh.querySelector("article.whole");
    if (!old || !now) return;
    const seen = [...old.children].find((each) => each.getBoundingClientRect().bottom > 0);
    const before = seen ? seen.getBoundingClientRect().top : 0;
    const moments = (within) => within.querySelectorAll("[data-part=timeline] li").length;
    const more = moments(now) - moments(old);
    old.className = now.className;
    old.dataset.about = now.dataset.about;
    for (const each of now.children) {
      const mine = part(each.dataset.part);
      if (mine.innerHTML === each.innerHTML) continue;
      const link = mine.contains(document.activeElement) && document.activeElement.getAttribute("href");
      mine.replaceChildren(...document.importNode(each, true).childNodes);
      const same = link && [...mine.querySelectorAll("a")].find((found) => found.getAttribute("href") === link);
      if (same) same.focus({ preventScroll: true });
    }
    if (more > 0) {
      const show = document.createElement("a");
      show.href = "#timeline";
      show.textContent = `${more + Number(news.dataset.more || 0)} more on the timeline`;
      show.addEventListener("click", () => { news.replaceChildren(); delete news.dataset.more; });
      news.dataset.more = more + Number(news.dataset.more || 0);
      news.replaceChildren(show);
    }
    settle(fresh, seen, before);
  };

  // Returns the page as it is now, or nothing. Nobody asked for it, so it keeps no session from ending.
  const reread = async (where) => {
    try {
      const how = { headers: { Accept: "text/html", "X-Unattended": "yes" }, redirect: "manual" };
      const answer = await fetch(where, how);
      if (answer.type === "opaqueredirect") out();
      if (answer.ok) return new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch { /* the stream says that it is gone */ }
    return null;
  };
  const out = () => {
    const again = document.createElement("a");
    again.href = location.href;
    again.textContent = "Log in again";
    live.replaceChildren("Not live: your session has ended. ", again);
    over = true;
  };

  let busy = false, again = false, over = false;
  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    again = false;
    const fresh = await reread(location.href);
    if (fresh) (kind === "queue" ? merge : renew)(fresh);
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
    const fresh = await reread(location.pathname);
    const card = fresh && fresh.querySelector("article.entry");
    if (card) watched(card.dataset.digest, card.dataset.state, card.dataset.approvers);
  };

  // An incident is renewed when something is told of it, of its cause or of what it explains.
  const concerns = (entry) => {
    const about = document.querySelector("article.whole").dataset.about.split(" ");
    const named = [entry.incident_id, entry.explained_by, ...entry.explains.map((each) => each.incident_id)];
    return named.some((each) => about.includes(each));
  };
  const told = {
    queue: () => refresh(),
    entry: (event) => changed(JSON.parse(event.data)),
    incident: (event) => { if (concerns(JSON.parse(event.data))) refresh(); },
  };

  const live = by("live");
  let pause = 1000, stream = null, waits = null;
  const watch = () => {
    waits = null;
    stream = new EventSource("/live");
    stream.onopen = () => {
      live.textContent = "Live.";
      pause = 1000;
      if (kind === "entry") look(); else refresh();
    };
    stream.addEventListener("queue", told[kind]);
    stream.onerror = async () => {
      live.textContent = "Not live: trying again.";
      if (stream.readyState !== EventSource.CLOSED) return;
      await (kind === "entry" ? look() : refresh());
      if (over || (document.hidden && kind !== "queue")) { stream = null; return; }
      waits = setTimeout(watch, pause); // refused: too many watch, or the orchestrator is away
      pause = Math.min(2 * pause, 60000);
    };
  };
  // A browser keeps six connections to one host, and each open stream is one of them: what is not looked at
  // lets go of it. The queue holds on, for the number in its title.
  const attend = () => {
    if (document.hidden && stream) {
      stream.close();
      clearTimeout(waits);
      stream = waits = null;
      live.textContent = "Not live while it is out of sight.";
    } else if (!document.hidden && !stream && !over) watch();
  };
  if (kind === "queue") watch();
  else if (told[kind]) {
    attend();
    document.addEventListener("visibilitychange", attend);
  }
  if (kind === "queue" || kind === "incident") setInterval(() => { if (!over) refresh(); }, 60000);

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
