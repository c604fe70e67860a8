import { useState } from 'react';
import { Confirm } from '../parts/dialog.tsx';
import { Field } from '../parts/field.tsx';
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
