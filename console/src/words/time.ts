/** Times as people read them: here and now in words, and exactly in UTC for whoever has to compare. */

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const two = (n: number) => String(n).padStart(2, '0');

/** `2026-11-21 22:18:07`, where the reader is. */
export function local(ms: number): string {
  const t = new Date(ms);
  return `${day(ms)} ${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
}

/** `2026-11-21`. */
export function day(ms: number): string {
  const t = new Date(ms);
  return `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())}`;
}

/** `22:18:07` today, and with its day otherwise. */
export function short(ms: number, now: number): string {
  return day(ms) === day(now) ? local(ms).slice(11) : local(ms).slice(0, 16);
}

export function utc(ms: number): string {
  const t = new Date(ms);
  return Number.isNaN(t.getTime()) ? '' : `${t.toISOString().replace('T', ' ').slice(0, 19)} UTC`;
}

/** `4 min 12 s`, with the two largest parts that are not nothing. */
export function span(ms: number): string {
  const parts: [number, string][] = [
    [DAY, 'd'],
    [HOUR, 'h'],
    [MINUTE, 'min'],
    [SECOND, 's'],
  ];
  let rest = Math.max(0, Math.round(ms / SECOND)) * SECOND;
  const words: string[] = [];
  for (const [long, unit] of parts) {
    const n = Math.floor(rest / long);
    rest -= n * long;
    if (n > 0) words.push(`${n} ${unit}`);
    else if (words.length > 0) break;
    if (words.length === 2) break;
  }
  return words.join(' ') || '0 s';
}

/** `12 s ago`, `in 4 min`: one part, since it is looked at and not computed with. */
export function ago(ms: number, now: number): string {
  const far = Math.abs(now - ms);
  if (far < 2 * SECOND) return 'now';
  const [long, unit] =
    far >= 2 * DAY
      ? [DAY, 'd']
      : far >= 2 * HOUR
        ? [HOUR, 'h']
        : far >= 2 * MINUTE
          ? [MINUTE, 'min']
          : [SECOND, 's'];
  const word = `${Math.floor(far / (long as number))} ${unit}`;
  return ms <= now ? `${word} ago` : `in ${word}`;
}
