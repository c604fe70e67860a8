/** Small drawings in one hand: 16 by 16, the colour of the text. They repeat what a word says and are not read out. */

const DRAWN = {
  ok: 'M3 8.5l3.2 3.2L13 5',
  warn: 'M8 2.2L14.4 13.5H1.6zM8 6.5v3M8 11.4v.6',
  bad: 'M4 4l8 8M12 4l-8 8',
  stop: 'M5.2 1.8h5.6l3.4 3.4v5.6l-3.4 3.4H5.2L1.8 10.8V5.2zM5 8h6',
  wait: 'M8 1.8a6.2 6.2 0 100 12.4A6.2 6.2 0 008 1.8zM8 4.5V8l2.4 1.6',
  run: 'M4.5 3l8 5-8 5z',
  pause: 'M5.5 3.5v9M10.5 3.5v9',
  back: 'M6 3.5L2.5 7 6 10.5M2.5 7H10a3.2 3.2 0 010 6.4H7',
  dot: 'M8 5.2a2.8 2.8 0 100 5.6 2.8 2.8 0 000-5.6z',
  search: 'M7 2.2a4.8 4.8 0 100 9.6 4.8 4.8 0 000-9.6zM10.5 10.5L14 14',
  fleet: 'M2.5 3.5h11v3.6h-11zM2.5 9h11v3.6h-11zM4.8 5.3h.4M4.8 10.8h.4',
  gateway: 'M2.5 9h11v4.5h-11zM5 11.2h.4M8 9V6.5M5.2 4.6a4 4 0 015.6 0M3.2 2.6a6.8 6.8 0 019.6 0',
  rollout: 'M2 12.5h3V9h3V5.5h3V2.5h3',
  release: 'M8 1.8l5.6 3v6.4L8 14.2l-5.6-3V4.8zM2.4 4.8L8 7.9l5.6-3.1M8 7.9v6.3',
  alert: 'M4 11V7a4 4 0 018 0v4l1.2 1.4H2.8zM6.7 14h2.6',
  approval:
    'M5.2 7.2a2.3 2.3 0 100-4.6 2.3 2.3 0 000 4.6zM1.5 13c0-2.4 1.6-4 3.7-4s3.7 1.6 3.7 4M9.5 6.5l1.8 1.8L15 4.5',
  evidence: 'M3.5 1.8h6l3 3v9.4h-9zM9.5 1.8v3h3M5.5 9l1.6 1.6 3-3',
  report: 'M2.5 13.5h11M4.5 11V7.5M8 11V3.5M11.5 11V6',
  users: 'M8 7.4a2.7 2.7 0 100-5.4 2.7 2.7 0 000 5.4zM2.8 14c0-3 2.2-4.8 5.2-4.8s5.2 1.8 5.2 4.8',
  menu: 'M2 4h12M2 8h12M2 12h12',
  sun: 'M8 5a3 3 0 100 6 3 3 0 000-6zM8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15M3 3l1.1 1.1M11.9 11.9L13 13M13 3l-1.1 1.1M4.1 11.9L3 13',
  moon: 'M13.2 9.8A5.8 5.8 0 016.2 2.8a5.8 5.8 0 107 7z',
  auto: 'M8 1.8a6.2 6.2 0 100 12.4A6.2 6.2 0 008 1.8zM8 2v12M8 4.5h3.4M8 8h5.8M8 11.5h3.4',
  copy: 'M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3',
  download: 'M8 2v8M4.8 7L8 10.2 11.2 7M2.5 13.5h11',
  left: 'M10 3L5 8l5 5',
  right: 'M6 3l5 5-5 5',
  plus: 'M8 3v10M3 8h10',
  minus: 'M3 8h10',
  print: 'M4.5 6V2h7v4M4.5 11h-2V6h11v5h-2M4.5 9h7v5h-7z',
} as const;

export type IconName = keyof typeof DRAWN;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={DRAWN[name]} />
    </svg>
  );
}

/** The load line: a circle and the line through it. */
export function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <circle cx="16" cy="16" r="10" />
      <path d="M1 16h30" />
    </svg>
  );
}
