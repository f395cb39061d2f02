"use strict";
/* Every text of a model is set as text content: whatever it holds, it is never markup. */
function browse(root) {
  const PAGE = 10;
  const [MANY, FEW] = [10, 6];
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const part = (role) => root.querySelector(`[data-role=${role}]`);
  const state = { at: 0, hidden: new Set(), settings: new Map() };

  function make(tag, text, name) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  }
  function option(value) {
    const made = make("option", value);
    made.value = value;
    return made;
  }
  function fill(select, values, wanted) {
    select.replaceChildren(...values.map(option));
    select.value = values.includes(wanted) ? wanted : values[0];
  }
  /* The sources under the chosen settings, by model; one that lacks a setting is the same under all of them. */
  function chosen() {
    const found = new Map();
    data.sources.forEach((source, number) => {
      const fits = [...state.settings].every(([key, value]) => !(key in source.settings) || source.settings[key] === value);
      if (fits && !found.has(source.model)) found.set(source.model, number);
    });
    return found;
  }
  function reward(prompt, number) {
    const answer = prompt.answers[number];
    return answer === undefined ? null : answer[1];
  }
  function gap(prompt, ours, theirs) {
    const [one, other] = [reward(prompt, ours), reward(prompt, theirs)];
    return one === null || other === null ? null : one - other;
  }
  function signed(value) { return (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(2); }

  function answers(prompt, models) {
    const list = make("dl");
    for (const [model, number] of models) {
      const answer = prompt.answers[number];
      if (answer === undefined || state.hidden.has(model)) continue;
      const name = make("dt", model);
      if (answer[1] !== null) {
        name.append(make("br"), make("span", `${data.sources[number].measure} ${answer[1].toFixed(2)}`, "reward"));
      }
      list.append(name, make("dd", data.texts[answer[0]]));
    }
    return list;
  }
  function card(prompt, models, difference) {
    const box = make("div", undefined, "prompt");
    box.append(make("p", data.texts[prompt.text]));
    if (difference !== null && part("ours").value !== part("theirs").value) {
      const told = make("p", `${part("ours").value} against ${part("theirs").value}: `, "gap");
      told.append(make("span", signed(difference), difference > 0 ? "win" : difference < 0 ? "loss" : ""));
      box.append(told);
    }
    box.append(answers(prompt, models));
    return box;
  }
  function matching(models) {
    const wanted = part("text").value.trim().toLowerCase();
    const shown = [...models].filter(([model]) => !state.hidden.has(model));
    const [ours, theirs] = [models.get(part("ours").value), models.get(part("theirs").value)];
    const order = part("order").value;
    const found = data.prompts
      .filter((prompt) => shown.some(([, number]) => number in prompt.answers))
      .filter((prompt) => data.texts[prompt.text].toLowerCase().includes(wanted))
      .map((prompt) => ({ prompt, gap: gap(prompt, ours, theirs) }));
    if (!order) return found;
    const sign = order === "win" ? -1 : 1;
    return found.filter((one) => one.gap !== null).sort((one, other) => sign * (one.gap - other.gap));
  }
  function show() {
    const models = chosen();
    const found = matching(models);
    state.at = Math.min(state.at, Math.max(0, Math.floor((found.length - 1) / PAGE) * PAGE));
    const page = found.slice(state.at, state.at + PAGE);
    part("list").replaceChildren(...page.map((one) => card(one.prompt, models, one.gap)));
    part("status").textContent = found.length
      ? `Prompts ${state.at + 1} to ${state.at + page.length} of ${found.length}` : "No prompt fits.";
    part("back").disabled = state.at === 0;
    part("next").disabled = state.at + PAGE >= found.length;
  }
  function showModels() {
    const names = [...chosen().keys()];
    const shown = names.filter((name) => !state.hidden.has(name));
    fill(part("ours"), names, part("ours").value || shown[shown.length - 1]);
    fill(part("theirs"), names, part("theirs").value || names[0]);
    part("models").replaceChildren(...names.map((name) => {
      const [label, box] = [make("label"), make("input")];
      box.type = "checkbox";
      box.value = name;
      box.checked = !state.hidden.has(name);
      box.addEventListener("change", () => {
        if (box.checked) state.hidden.delete(name); else state.hidden.add(name);
        restart();
      });
      label.append(box, make("span", name));
      return label;
    }));
  }
  function restart() { state.at = 0; show(); }
  function turn(step) {
    state.at += step;
    show();
    root.querySelector(".pages").scrollIntoView({ block: "nearest" });
  }
  function offer(key) {
    const values = [...new Set(data.sources.map((source) => source.settings[key]).filter((value) => value !== undefined))];
    const [label, select] = [make("label", key), make("select")];
    select.dataset.setting = key;
    fill(select, values, values[0]);
    state.settings.set(key, select.value);
    select.addEventListener("change", () => { state.settings.set(key, select.value); showModels(); restart(); });
    label.append(select);
    return label;
  }

  const keys = [...new Set(data.sources.flatMap((source) => Object.keys(source.settings)))];
  part("settings").replaceChildren(...keys.map(offer));
  part("text").addEventListener("input", restart);
  part("order").addEventListener("change", restart);
  for (const role of ["ours", "theirs"]) {
    part(role).addEventListener("change", () => { state.hidden.delete(part(role).value); showModels(); restart(); });
  }
  part("back").addEventListener("click", () => turn(-PAGE));
  part("next").addEventListener("click", () => turn(PAGE));
  for (const hidden of root.querySelectorAll("[hidden]")) hidden.hidden = false;
  const names = [...chosen().keys()];
  if (names.length > MANY) names.slice(FEW).forEach((name) => state.hidden.add(name));
  showModels();
  show();
}
document.querySelectorAll(".browser").forEach(browse);
