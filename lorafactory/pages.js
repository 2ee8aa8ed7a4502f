// A button with data-copy puts that text on the clipboard; where there is none, it selects the text beside it.
addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.dataset.said = "copied";
    setTimeout(() => delete button.dataset.said, 1500);
  } catch {
    getSelection().selectAllChildren(button.parentElement.querySelector("code"));
  }
});
