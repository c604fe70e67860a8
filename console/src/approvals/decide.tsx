import { useState } from 'react';
import { Button } from '../parts/button.tsx';
import { Confirm } from '../parts/dialog.tsx';
import { Text } from '../parts/field.tsx';
import type { Approval } from '../site/contract.ts';
import { useMe } from '../site/me.tsx';
import { roleName } from '../site/rights.ts';
import { Outcome } from './act.tsx';
import { hindranceOf, isOwn, mayRefuse, personOf } from './second.ts';

export type Verb = 'approve' | 'refuse';

/** What the caller can say to it, and why not more. */
export function YourWord({ of, say }: { of: Approval; say: (verb: Verb) => void }) {
  const me = useMe();
  const hinders = hindranceOf(me, of);
  return (
    <>
      {hinders && <p className="faint">{hinders}</p>}
      <span className="row-buttons">
        {!hinders && (
          <Button kind="main" icon="ok" onClick={() => say('approve')}>
            Approve…
          </Button>
        )}
        {mayRefuse(me, of) && (
          <Button onClick={() => say('refuse')}>{isOwn(me, of) ? 'Withdraw…' : 'Refuse…'}</Button>
        )}
      </span>
    </>
  );
}

/** As much as control takes (`REASON_BYTES_MAX`); a letter of any script is at most four bytes. */
const REASON_CHARS_MAX = 250;

export function Decide({
  approval,
  verb,
  onClose,
}: {
  approval: Approval;
  verb: Verb;
  onClose: () => void;
}) {
  const me = useMe();
  const [reason, setReason] = useState('');
  const path = `/v1/approvals/${encodeURIComponent(approval.id)}/${verb}`;
  const asked = (
    <>
      <p>
        <strong>{approval.sentence}.</strong>
      </p>
      <p>
        Asked for by {personOf(approval.asked_by)}, as {roleName(approval.asked_as)}.
      </p>
    </>
  );
  if (verb === 'approve') {
    return (
      <Confirm
        title="Approve it?"
        verb="Approve"
        says={
          <>
            {asked}
            <Outcome of={approval.id} />
            <p>It is done as soon as you approve it, in both names.</p>
          </>
        }
        order={() => ({ path })}
        onClose={onClose}
      />
    );
  }
  const own = isOwn(me, approval);
  return (
    <Confirm
      title={own ? 'Withdraw it?' : 'Refuse it?'}
      verb={own ? 'Withdraw' : 'Refuse'}
      danger
      says={
        <>
          {asked}
          <p>It is not done. Whoever still wants it asks for it anew.</p>
        </>
      }
      order={() => ({ path, body: { reason } })}
      onClose={onClose}
    >
      <Text label="Why" required max={REASON_CHARS_MAX} value={reason} onChange={setReason} />
    </Confirm>
  );
}
