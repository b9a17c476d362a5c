// Says what the box "so that all of my gift arrives" adds. For the eye alone: the server reckons what is charged.
(() => {
  const box = document.getElementById("cover");
  if (!box) return;
  const form = box.form, said = document.getElementById("cover-amount"), sum = document.getElementById("cover-sum");
  const general = said.textContent, { currency, symbol, written } = box.dataset;
  const [perMillion, fixed, step, digits] = ["perMillion", "fixed", "step", "digits"].map((name) => Number(box.dataset[name]));
  const million = 1_000_000, most = Number(box.dataset.most), units = 10 ** digits;

  const fee = (total) => Math.floor((total * perMillion + million / 2) / million) + fixed;
  const cover = (amount) => {
    let total = Math.ceil(((amount + fixed) * million) / (million - perMillion) / step) * step;
    while (total - step - fee(total - step) >= amount) total -= step;
    while (total - fee(total) < amount) total += step;
    return total - amount;
  };

  const typed = (text) => {
    let plain = text.trim();
    for (const sign of [symbol, currency]) {
      if (plain.startsWith(sign)) plain = plain.slice(sign.length).trim();
      if (plain.endsWith(sign)) plain = plain.slice(0, -sign.length).trim();
    }
    const match = /^(\d{1,12}|[1-9]\d{0,2}(?:,\d{3}){1,3})(?:\.(\d{1,3}))?$/.exec(plain);
    if (!match || (match[2] || "").length > digits) return 0;
    return Number(match[1].replaceAll(",", "") + (match[2] || "").padEnd(digits, "0"));
  };

  const label = (minor) => {
    if (written === "locale") return new Intl.NumberFormat("en-US", { style: "currency", currency }).format(minor / units);
    const rest = minor % units;
    return `${((minor - rest) / units).toLocaleString("en-US")}${rest ? "." + String(rest).padStart(digits, "0") : ""} ${symbol}`;
  };

  const show = () => {
    // Of the two choices the one that counts, as on the server.
    const monthly = Boolean(form.querySelector("[name=frequency][value=monthly]:checked")), of = monthly ? "monthly_" : "";
    const tier = form.querySelector(`[name=${of}tier]:checked`), value = tier ? tier.value : "";
    const amount = value === "custom" ? typed(form.elements[`${of}amount`].value) : Number(value);
    const known = amount > 0 && amount % step === 0 && amount + cover(amount) <= most;
    said.textContent = known ? label(cover(amount)) : general;
    sum.textContent = known && box.checked ? `You pay ${label(amount + cover(amount))} ${monthly ? "each month" : "in all"}.` : "";
  };
  form.addEventListener("input", show);
  addEventListener("pageshow", show);
  show();
})();
