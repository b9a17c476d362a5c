// Looks again whether the payment is confirmed, and shows the page that then stands, without loading it anew.
// Without scripts the page loads itself anew.
(() => {
  const main = document.getElementById("main");
  const after = (page) => Number(page.querySelector("[data-look-again-after]")?.dataset.lookAgainAfter) * 1000;
  const heading = (page) => page.querySelector("h1")?.textContent;

  const show = (text) => {
    const page = new DOMParser().parseFromString(text, "text/html");
    if (heading(page) !== heading(document)) {
      main.replaceChildren(...page.getElementById("main").childNodes);
      document.title = page.title;
    }
    lookLater(after(page)); // of a page that looks no more this is not a number, and nothing is awaited
  };
  const lookLater = (milliseconds) => milliseconds && setTimeout(look, milliseconds);
  const look = async () => {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (answer.ok) return show(await answer.text());
    } catch {
      // Whoever is away for a moment may be back at the next look.
    }
    lookLater(after(document));
  };

  main.setAttribute("aria-live", "polite");
  lookLater(after(document));
})();
