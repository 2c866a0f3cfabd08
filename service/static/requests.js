// Requests to our own API. Every outcome is one of: {ok, body}, {retry, why}, {refused, status, message}.

export const TIMEOUT_MS = 15000;

export async function call(method, path, body, timeoutMs = TIMEOUT_MS) {
  let answer;
  try {
    answer = await fetch(`/api/v1${path}`, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(timeoutMs),
    });
  } catch {
    return { retry: true, why: "offline" };
  }
  let content = null;
  try {
    content = answer.status === 204 ? null : await answer.json();
  } catch {
    // A cut connection or a proxy's own page: what the service did is unknown, so ask again.
    return { retry: true, why: "offline" };
  }
  if (answer.ok) return { ok: true, body: content };
  if (answer.status === 401) return { retry: true, why: "logged out" };
  if (answer.status === 408 || answer.status === 429 || answer.status >= 500) return { retry: true, why: "busy" };
  return { refused: true, status: answer.status, message: content?.message ?? `status ${answer.status}` };
}
