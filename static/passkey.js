// Says in words what allauth's passkey scripts tell only the console.
document.addEventListener("allauth.error", (event) => {
  const isAddress = /^[\d.]+$|^\[/.test(location.hostname);
  const byName = location.href.replace(location.hostname, "localhost");
  const { name } = event.detail.exception;
  let words = "The passkey did not work. Try once more, or use another way to sign in.";
  if (isAddress) words = `Passkeys need a host name: open ${byName} instead.`;
  else if (name === "NotAllowedError") words = "No passkey was used: the dialogue was closed, or took too long.";
  else if (name === "InvalidStateError") words = "This device already has a passkey for your account.";

  let box = document.getElementById("passkey-trouble");
  if (!box) {
    box = document.createElement("p");
    box.id = "passkey-trouble";
    box.className = "message error";
    box.setAttribute("role", "alert");
    document.querySelector("main form").before(box);
  }
  box.textContent = words;
  event.preventDefault();
});
