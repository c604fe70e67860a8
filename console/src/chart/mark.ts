/** What happened, as lines across the charts of a device. Pure. */

import type { Moment } from '../site/contract.ts';

export interface Mark {
  at: number;
  label: string;
  /** The whole sentence. */
  sentence: string;
  kind: 'firmware' | 'rollout';
}

export function marksOf(moments: Moment[]): Mark[] {
  return moments
    .filter(moment => moment.kind === 'firmware' || moment.kind === 'rollout')
    .map(moment => ({
      at: moment.at_ms,
      kind: moment.kind as Mark['kind'],
      label: labelOf(moment),
      sentence: moment.sentence,
    }));
}

function labelOf({ kind, sentence, detail }: Moment): string {
  const word = (name: string) =>
    typeof detail?.[name] === 'string' ? String(detail[name]) : undefined;
  const version = word('version') ?? (kind === 'firmware' ? word('to') : undefined);
  // What is on trial may still go back.
  const boot = word('boot') === 'confirmed' ? undefined : word('boot');
  if (version) return [word('product'), version, boot].filter(Boolean).join(' ');
  return sentence.length > 28 ? `${sentence.slice(0, 27)}…` : sentence;
}
