// The server's answers. Errors of people come as one sentence.

async function answer(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    body = null;
  }
  if (!response.ok) {
    const said = body && (body.error || (Array.isArray(body.detail) && body.detail[0].msg));
    const error = new Error(said || `the server answered ${response.status}`);
    error.status = response.status;
    throw error;
  }
  return body;
}

export async function get(path, params = {}, signal = undefined) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== null && value !== "") search.set(name, value);
  }
  const text = search.toString();
  return answer(await fetch(text ? `${path}?${text}` : path, { signal }));
}

export async function post(path, body = {}) {
  const headers = { "content-type": "application/json" };
  return answer(await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

export const posterOf = (id) => `/poster/${encodeURIComponent(id)}.jpg`;
export const mediaOf = (id) => `/media/${encodeURIComponent(id)}`;
export const sampledOf = (id) => `/sampled/${encodeURIComponent(id)}.mp4`;

/** Bytes from base64. */
export function bytes(text) {
  const binary = atob(text);
  const found = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) found[i] = binary.charCodeAt(i);
  return found;
}
