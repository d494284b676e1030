// Saves a text as a file of the user's. Nothing leaves the machine.

/** Offers `text` as a download called `name`. */
export function saveText(name: string, text: string, type = "application/json"): void {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  // The browser has taken hold of the data once it has begun to save.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
