// The pages for a person: sign in, then allow or deny. Plain forms without scripts.

const escaped = (text) =>
  String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

const page = (title, body) => `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>${escaped(title)}</title></head>
<body><h1>${escaped(title)}</h1>
${body}
</body>
</html>
`;

export const login = (action) => page('Sign in', `<form method="post" action="${escaped(action)}">
<input type="hidden" name="prompt" value="login">
<label>Name <input type="text" name="login" required autofocus></label>
<label>Password <input type="password" name="password" required></label>
<button type="submit" name="decision" value="login">Sign in</button>
</form>`);

export const consent = (action, client, scopes) => page('Allow access', `<p>${escaped(client)} asks for:</p>
<ul>${scopes.map((scope) => `<li>${escaped(scope)}</li>`).join('')}</ul>
<form method="post" action="${escaped(action)}">
<input type="hidden" name="prompt" value="consent">
<button type="submit" name="decision" value="allow">Allow</button>
<button type="submit" name="decision" value="deny">Deny</button>
</form>`);
