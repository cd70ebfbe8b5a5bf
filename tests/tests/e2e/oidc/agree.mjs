// Does what a person does in a browser on a provider's device page: follows it form by form.
// Usage: node agree.mjs ADDRESS USER [deny]. Prints the last page; exits 1 if it leads nowhere.
const [address, user, deny] = process.argv.slice(2);
const cookies = new Map();

async function visit(url, options = {}) {
  for (let hops = 0; hops < 20; hops += 1) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const headers = { ...options.headers, ...(cookie && { cookie }) };
    const answer = await fetch(url, { ...options, headers, redirect: 'manual' });
    for (const line of answer.headers.getSetCookie()) {
      const [name, ...value] = line.split(';')[0].split('=');
      if (value.join('=')) cookies.set(name, value.join('=')); else cookies.delete(name);
    }
    if (answer.status < 300 || answer.status >= 400) return { url, page: await answer.text() };
    url = new URL(answer.headers.get('location'), url).href;
    options = {};
  }
  throw new Error('too many redirects');
}

const attribute = (tag, name) => tag.match(new RegExp(`\\b${name}="([^"]*)"`))?.[1]?.replaceAll('&amp;', '&');

let at = await visit(address);
let denied = false;
for (let step = 0; step < 10 && !denied && at.page.includes('<form'); step += 1) {
  const form = at.page.match(/<form[^>]*>[\s\S]*?<\/form>/)[0];
  const fields = new URLSearchParams();
  for (const input of form.match(/<input[^>]*>/g) ?? []) {
    const name = attribute(input, 'name');
    if (name) fields.set(name, attribute(input, 'value') ?? '');
  }
  if (fields.has('login')) fields.set('login', user);
  if (fields.has('password')) fields.set('password', 'any');
  if (fields.get('user_code') === '') fields.set('user_code', new URL(address).searchParams.get('user_code'));
  if (deny && fields.has('confirm')) { fields.delete('confirm'); fields.set('abort', 'yes'); denied = true; }
  const action = new URL(attribute(form, 'action') ?? at.url, at.url).href;
  at = await visit(action, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: fields.toString(),
  });
}
console.log(at.page.replace(/<style[\s\S]*?<\/style>/g, '').replace(/<[^>]*>/g, ' ').replace(/\s+/g, ' '));
process.exit(denied || /Sign-in Success/.test(at.page) ? 0 : 1);
