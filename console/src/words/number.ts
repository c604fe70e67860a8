/** Numbers as people read them. */

const WHOLE = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

export function count(n: number): string {
  return WHOLE.format(n);
}

/** `1 device`, `2,000 devices`. */
export function counted(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** A measured value with as many digits as it takes to tell it from its neighbour. */
export function value(v: number | null | undefined): string {
  if (v === null || v === undefined) return '–';
  if (!Number.isFinite(v)) return String(v);
  const size = Math.abs(v);
  if (Number.isInteger(v) && size < 1e6) return WHOLE.format(v);
  if (size !== 0 && (size >= 1e9 || size < 1e-4)) return v.toExponential(3);
  const digits = size >= 1000 ? 1 : 5;
  return new Intl.NumberFormat('en', {
    maximumSignificantDigits: size >= 1000 ? 7 : digits,
  }).format(v);
}

const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function size(bytes: number): string {
  let power = 0;
  let n = bytes;
  while (Math.abs(n) >= 1024 && power < BINARY.length - 1) {
    n /= 1024;
    power += 1;
  }
  return `${power === 0 ? n : n.toFixed(n < 10 ? 2 : 1)} ${BINARY[power]}`;
}

/** SenML's units (RFC 8428 §12.1) as people write them. */
export function unitName(unit: string | null | undefined): string {
  if (!unit) return '';
  const known: Record<string, string> = {
    '/': 'ratio',
    Cel: '°C',
    m3: 'm³',
    'm3/s': 'm³/s',
    m2: 'm²',
    deg: '°',
  };
  return known[unit] ?? unit;
}

/** A measured value with its unit; bytes in powers of 1024. */
export function measured(v: number | null | undefined, unit: string | null | undefined): string {
  if (typeof v !== 'number') return '–';
  if (unit === 'B') return size(v);
  if (unit === 'B/s') return `${size(v)}/s`;
  const name = unit === '/' || unit === 'count' ? '' : unitName(unit);
  return name ? `${value(v)} ${name}` : value(v);
}

export function percent(part: number, whole: number): number {
  return whole === 0 ? 0 : (100 * part) / whole;
}
