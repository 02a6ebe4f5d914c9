// A click or a key on a title asks why it stands there.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-item]");
  if (!button) return;
  element.querySelectorAll("[aria-current]").forEach((one) => one.removeAttribute("aria-current"));
  button.setAttribute("aria-current", "true");
  trigger("explain", { item: button.dataset.item });
});
// On small screens a new ranking stands below what was asked.
watch("value", () => {
  const shown = element.querySelector("h2, [role=alert]");
  if (shown && shown.getBoundingClientRect().top > innerHeight / 2) {
    shown.scrollIntoView({ behavior: "smooth" });
  }
});
