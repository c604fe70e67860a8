import { useState } from 'react';
import { Confirm } from '../parts/dialog.tsx';
import { Choice, Field } from '../parts/field.tsx';
import type { Alert } from '../site/contract.ts';

export function Acknowledge({ alert, onClose }: { alert: Alert; onClose: () => void }) {
  const [note, setNote] = useState('');
  return (
    <Confirm
      title="Acknowledge this alert?"
      verb="Acknowledge"
      says={
        <>
          <p>
            <strong>{alert.sentence}</strong>
          </p>
          <p>
            You say that you see to it. It is not said again, and does not go up; it ends when what
            it tells of ends.
          </p>
        </>
      }
      order={() => ({
        path: `/v1/alerts/${alert.id}/acknowledge`,
        body: note.trim() ? { note: note.trim() } : {},
      })}
      onClose={onClose}
    >
      <Field label="Note (for whoever comes next)" value={note} onChange={setNote} />
    </Confirm>
  );
}

const HOUR_MS = 3_600_000;

export function SilenceFirst({ alert, onClose }: { alert: Alert; onClose: () => void }) {
  const [of, setOf] = useState('both');
  const [hours, setHours] = useState('4');
  const [reason, setReason] = useState('');
  return (
    <Confirm
      title="Silence this alert?"
      verb="Silence"
      says={
        <>
          <p>
            <strong>{alert.sentence}</strong>
          </p>
          <p>It is still looked at, and nobody is told, until the silence ends by itself.</p>
        </>
      }
      order={() => ({
        path: '/v1/silences',
        body: {
          ...(of !== 'subject' ? { rule: alert.rule } : {}),
          ...(of !== 'rule' ? { subject: alert.subject } : {}),
          until_ms: Date.now() + Number(hours) * HOUR_MS,
          reason: reason.trim(),
        },
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
      <Choice
        label="For"
        value={hours}
        options={[
          ['1', 'an hour'],
          ['4', '4 hours'],
          ['24', 'a day'],
          ['168', 'a week'],
          ['720', '30 days'],
        ]}
        onChange={setHours}
      />
      <Field label="Why" required value={reason} onChange={setReason} />
    </Confirm>
  );
}
