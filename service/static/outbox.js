// Answers that the service has not yet confirmed, kept in this browser so that nothing that happens loses one.
// One storage entry an answer: two tabs never overwrite each other, and sending one twice is harmless (its key).

export class Outbox {
  constructor(prefix) {
    this.prefix = prefix;
    this.memory = new Map();
    this.durable = true;
  }

  put(answer) {
    try {
      localStorage.setItem(this.prefix + answer.key, JSON.stringify(answer));
      this.memory.delete(answer.key);
    } catch {
      // Storage is full or switched off: keep it in the page, and let the page say so.
      this.durable = false;
      this.memory.set(answer.key, answer);
    }
  }

  drop(key) {
    this.memory.delete(key);
    try {
      localStorage.removeItem(this.prefix + key);
    } catch {
      // It was never stored.
    }
  }

  all() {
    const found = new Map(this.memory);
    try {
      for (let position = 0; position < localStorage.length; position += 1) {
        const name = localStorage.key(position);
        if (!name.startsWith(this.prefix)) continue;
        const answer = JSON.parse(localStorage.getItem(name));
        if (answer && answer.key) found.set(answer.key, answer);
      }
    } catch {
      this.durable = false;
    }
    return [...found.values()].sort((one, other) => one.at - other.at);
  }

  waiting() {
    return this.all().filter((answer) => !answer.refused);
  }

  refused() {
    return this.all().filter((answer) => answer.refused);
  }
}

export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
