// A combobox over the catalogue, searched on the server, and the list of what has been picked.
const $ = (selector) => element.querySelector(selector);
const input = $("input");
const found = $("[role=listbox]");
const picked = $("ol");
const error = $("[role=alert]");
const status = $("[role=status]");
let options = [];
let active = -1;
let typed = 0; // number of the last search; answers to earlier ones come too late
let searching = Promise.resolve();

const history = () => (Array.isArray(props.value) ? props.value : []);

function make(tag, properties = {}, attributes = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function fail(text) {
  error.textContent = text;
  error.hidden = !text;
}

function close() {
  options = [];
  active = -1;
  found.hidden = true;
  found.replaceChildren();
  input.setAttribute("aria-expanded", "false");
  input.removeAttribute("aria-activedescendant");
}

function activate(place) {
  active = place;
  [...found.querySelectorAll("[role=option]")].forEach((option, number) => {
    option.setAttribute("aria-selected", String(number === place));
    if (number === place) option.scrollIntoView({ block: "nearest" });
  });
  if (place < 0) input.removeAttribute("aria-activedescendant");
  else input.setAttribute("aria-activedescendant", `delrec-option-${place}`);
}

function offer(answer) {
  options = answer.options;
  const rows = options.map(({ id, title }, place) => {
    const option = make("li", { id: `delrec-option-${place}` }, { role: "option" });
    option.append(make("span", { textContent: title }), make("small", { textContent: id }));
    option.addEventListener("click", () => add(options[place]));
    return option;
  });
  const more = answer.count - options.length;
  if (!options.length) rows.push(make("li", { textContent: "No title has all of these words." }));
  if (more > 0) rows.push(make("li", { textContent: `${more.toLocaleString("en")} more: type on` }));
  found.replaceChildren(...rows);
  found.hidden = false;
  input.setAttribute("aria-expanded", "true");
  // What names several items names none of them until one is chosen.
  activate(options.length && !answer.is_ambiguous ? 0 : -1);
  status.textContent = `${answer.count} found`;
}

function search() {
  const number = ++typed;
  const text = input.value;
  fail("");
  if (!text.trim()) {
    close();
    return;
  }
  searching = new Promise((resolve) => setTimeout(resolve, 80)).then(async () => {
    if (number !== typed) return;
    const answer = await server.search(text);
    if (number === typed) offer(answer);
  });
}

async function pick() {
  const text = input.value;
  if (!text.trim()) {
    trigger("rank");
    return;
  }
  let waited;
  do {
    waited = searching;
    await waited;
  } while (waited !== searching);
  if (input.value !== text) return;
  if (active >= 0) {
    add(options[active]);
    return;
  }
  const answer = await server.find(text);
  if (answer.error) fail(answer.error);
  else add(answer);
}

function add(item) {
  input.value = "";
  typed++;
  fail("");
  close();
  change([...history(), item], `${item.title} added`);
  input.focus();
  picked.lastElementChild?.scrollIntoView({ block: "nearest" });
}

function change(items, told) {
  props.value = items;
  show();
  status.textContent = `${told}; ${items.length} in the history`;
}

function move(place, step) {
  const items = [...history()];
  const [item] = items.splice(place, 1);
  items.splice(place + step, 0, item);
  change(items, `${item.title} is now number ${place + step + 1}`);
  const [up, down] = picked.children[place + step].querySelectorAll("button");
  const pressed = step < 0 ? up : down;
  (pressed.disabled ? (step < 0 ? down : up) : pressed).focus();
}

function remove(place) {
  const items = [...history()];
  const [item] = items.splice(place, 1);
  change(items, `${item.title} removed`);
  const next = picked.children[Math.min(place, items.length - 1)];
  (next ? next.querySelector("[data-do=remove]") : input).focus();
}

function show() {
  const items = history();
  const rows = items.map(({ title }, place) => {
    const row = make("li");
    const tool = (sign, name, act, disabled) => {
      const label = { "aria-label": name, title: name.split(":")[0] };
      const button = make("button", { type: "button", textContent: sign, disabled }, label);
      button.addEventListener("click", act);
      return button;
    };
    const up = tool("↑", `Move up: ${title}`, () => move(place, -1), place === 0);
    const down = tool("↓", `Move down: ${title}`, () => move(place, 1), place === items.length - 1);
    const out = tool("×", `Remove: ${title}`, () => remove(place), false);
    out.dataset.do = "remove";
    row.append(make("span", { textContent: title }), up, down, out);
    return row;
  });
  picked.replaceChildren(...rows);
  $(".delrec-empty").hidden = items.length > 0;
  $("[data-do=clear]").disabled = items.length === 0;
  $("h2 small").textContent = items.length > 1 ? "oldest first" : "";
}

input.placeholder = `Type the title of a ${props.item}`;
input.addEventListener("input", search);
input.addEventListener("blur", close);
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    event.preventDefault();
    pick();
  } else if (event.key === "Escape") {
    close();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && options.length) {
    event.preventDefault();
    const step = event.key === "ArrowDown" ? 1 : -1;
    const start = active < 0 && step < 0 ? 0 : active;
    activate((start + step + options.length) % options.length);
  }
});
found.addEventListener("mousedown", (event) => event.preventDefault()); // the input keeps the focus
$("[data-do=example]").addEventListener("click", () => trigger("example"));
$("[data-do=clear]").addEventListener("click", () => {
  change([], "Cleared");
  input.focus();
});
watch("value", () => {
  fail("");
  show();
  status.textContent = `${history().length} in the history`;
});
show();
