import { useState } from 'react';
import { Confirm } from '../parts/dialog.tsx';
import { Choice, Field } from '../parts/field.tsx';
import { useAsk } from '../site/ask.ts';
import type { Alert, NewSilence, Rules } from '../site/contract.ts';
import { endOf, localMinute, SILENCE_MAX_MS } from './silence-end.ts';

const PATH = '/v1/silences';

/** When it ends, and why it is: what every silence has. */
interface Bounds {
  hours: string;
  until: string;
  reason: string;
}

/** Silences what an alert is about. */
export function SilenceFirst({ alert, onClose }: { alert: Alert; onClose: () => void }) {
  const [of, setOf] = useState('both');
  const [bounds, put] = useBounds();
  return (
    <Confirm
      title="Silence this alert?"
      verb="Silence"
      says={
        <>
          <p>
            <strong>{alert.sentence}</strong>
          </p>
          <Says />
        </>
      }
      order={() => ({
        path: PATH,
        body: silenceOf(
          of !== 'subject' ? alert.rule : '',
          of !== 'rule' ? alert.subject : '',
          bounds,
        ),
      })}
      onClose={onClose}
    >
      <Choice
        label="What is silent"
        value={of}
        options={[
          ['both', `${alert.rule} about ${alert.subject}`],
          ['subject', `everything about ${alert.subject}`],
          ['rule', `${alert.rule} about anything`],
        ]}
        onChange={setOf}
      />
      <BoundFields of={bounds} put={put} />
    </Confirm>
  );
}

/** Silences what is not an alert yet: work that somebody is about to begin. */
export function SilenceAhead({ onClose }: { onClose: () => void }) {
  const rules = useAsk<Rules>('/v1/alert-rules');
  const [rule, setRule] = useState('');
  const [subject, setSubject] = useState('');
  const [bounds, put] = useBounds();
  return (
    <Confirm
      title="New silence"
      verb="Silence"
      says={<Says />}
      order={() => ({ path: PATH, body: silenceOf(rule, subject.trim(), bounds) })}
      onClose={onClose}
    >
      <Choice
        label="Rule"
        value={rule}
        options={[
          ['', 'any'],
          ...(rules.data?.rules ?? []).map((one): [string, string] => [one.id, one.id]),
        ]}
        onChange={setRule}
      />
      <Field
        label="Subject"
        hint={rule ? 'A device, a gateway or site. Empty: any.' : 'A device, a gateway or site.'}
        required={rule === ''}
        spellCheck={false}
        value={subject}
        onChange={setSubject}
      />
      <BoundFields of={bounds} put={put} />
    </Confirm>
  );
}

function Says() {
  return <p>It is still looked at and shown, and nobody is told, until the silence ends by itself.</p>;
}

function useBounds() {
  const [bounds, setBounds] = useState<Bounds>({ hours: '4', until: '', reason: '' });
  const put = (change: Partial<Bounds>) => setBounds(before => ({ ...before, ...change }));
  return [bounds, put] as const;
}

function silenceOf(rule: string, subject: string, { hours, until, reason }: Bounds): NewSilence {
  return {
    ...(rule ? { rule } : {}),
    ...(subject ? { subject } : {}),
    until_ms: endOf(hours, until, Date.now()),
    reason: reason.trim(),
  };
}

function BoundFields({ of, put }: { of: Bounds; put: (change: Partial<Bounds>) => void }) {
  const now = Date.now();
  return (
    <>
      <Choice
        label="For"
        value={of.hours}
        options={[
          ['1', 'an hour'],
          ['4', '4 hours'],
          ['24', 'a day'],
          ['168', 'a week'],
          ['696', '29 days'],
          ['', 'until a time'],
        ]}
        onChange={hours => put({ hours })}
      />
      {of.hours === '' && (
        <Field
          label="Until, by this machine’s clock"
          type="datetime-local"
          required
          min={localMinute(now)}
          max={localMinute(now + SILENCE_MAX_MS)}
          value={of.until}
          onChange={until => put({ until })}
        />
      )}
      <Field label="Why" required value={of.reason} onChange={reason => put({ reason })} />
    </>
  );
}
