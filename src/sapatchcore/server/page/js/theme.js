// Runs before the page is drawn, so that a dark page never flashes white. A classic script, since modules come later.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    let wanted = "auto";
    try {
      wanted = JSON.parse(localStorage.getItem("sapatchcore"))?.theme ?? "auto";
    } catch {
      // Nothing is remembered, or nothing may be: the system's choice stands.
    }
    const theme = wanted === "auto" ? (dark.matches ? "dark" : "light") : wanted;
    document.documentElement.dataset.bsTheme = theme;
    window.dispatchEvent(new CustomEvent("themed", { detail: theme }));
  };
  dark.addEventListener("change", apply);
  window.addEventListener("theme", apply);
  apply();
})();
