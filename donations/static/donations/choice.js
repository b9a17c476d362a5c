// Of a tier and a typed amount the one that is chosen is sent. What was typed stays, and comes back with the form.
(() => {
  const form = document.querySelector("form.give");
  if (!form) return;
  const fit = () => {
    for (const of of ["", "monthly_"]) {
      const amount = form.elements[`${of}amount`], tier = form.querySelector(`[name=${of}tier]:checked`);
      if (!amount) continue;
      const chosen = tier ? tier.value : "";
      amount.disabled = chosen !== "custom";
      form.elements[`${of}aside`].value = amount.disabled && amount.value ? `${chosen} ${amount.value}` : "";
    }
  };
  form.addEventListener("input", fit);
  addEventListener("pageshow", fit);
  fit();
})();
