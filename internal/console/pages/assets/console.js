// What the pages do by themselves: parts marked with data-live are fetched anew, forms marked with data-theme-form take effect at once.
// Without this script everything still works, by loading the page again.
"use strict";

(() => {
  const offline = () => document.getElementById("offline");

  // becomes makes one element the same as another, changing only what differs: focus, selection and running transitions stay.
  function becomes(old, next) {
    for (const a of [...old.attributes]) if (!next.hasAttribute(a.name) && a.name !== "data-stale" && a.name !== "open") old.removeAttribute(a.name);
    for (const a of next.attributes) if (old.getAttribute(a.name) !== a.value) old.setAttribute(a.name, a.value);
    const have = [...old.childNodes], want = [...next.childNodes];
    for (let i = 0; i < want.length; i++) {
      const h = have[i], w = want[i];
      if (!h) old.appendChild(document.importNode(w, true));
      else if (h.nodeType !== w.nodeType || h.nodeName !== w.nodeName || (h.id || "") !== (w.id || "")) old.replaceChild(document.importNode(w, true), h);
      else if (h.nodeType === Node.ELEMENT_NODE) becomes(h, w);
      else if (h.nodeValue !== w.nodeValue) h.nodeValue = w.nodeValue;
    }
    for (let i = want.length; i < have.length; i++) have[i].remove();
  }

  async function live(el) {
    const stop = new AbortController();
    const late = setTimeout(() => stop.abort(), 8000);
    try {
      const res = await fetch(el.dataset.live, { headers: { "X-Live": "1" }, credentials: "same-origin", signal: stop.signal });
      if (res.status === 401) { location.reload(); return; }
      if (!res.ok) throw new Error(res.status);
      const next = new DOMParser().parseFromString(await res.text(), "text/html").body.firstElementChild;
      if (!next || next.id !== el.id) throw new Error("not what was asked for");
      becomes(el, next);
      el.removeAttribute("data-stale");
      offline()?.classList.remove("on");
    } catch {
      el.setAttribute("data-stale", "");
      offline()?.classList.add("on");
    } finally {
      clearTimeout(late);
    }
    again(el);
  }

  function again(el) {
    if (!el.dataset.live || !el.isConnected) return;
    setTimeout(() => {
      if (document.hidden) document.addEventListener("visibilitychange", () => live(el), { once: true });
      else live(el);
    }, Number(el.dataset.every) || 1000);
  }

  for (const el of document.querySelectorAll("[data-live]")) again(el);

  // The theme: the button's form works without this; with it the page does not flash.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const form = document.querySelector("[data-theme-form]");
  if (form) form.addEventListener("submit", (e) => {
    e.preventDefault();
    const root = document.documentElement;
    const is = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = is === "dark" ? "light" : "dark";
    const body = new URLSearchParams(new FormData(form));
    body.set("theme", root.dataset.theme);
    fetch(form.action, { method: "POST", body, credentials: "same-origin", redirect: "manual" });
  });

  // All the boxes of a table at once.
  for (const all of document.querySelectorAll("[data-all]")) {
    all.hidden = false;
    all.addEventListener("change", () => {
      for (const box of document.querySelectorAll(`input[name="${all.dataset.all}"]:not([disabled])`)) box.checked = all.checked;
    });
  }
})();
