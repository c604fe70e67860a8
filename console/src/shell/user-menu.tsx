import { type FormEvent, useEffect, useRef, useState } from 'react';
import { Button } from '../parts/button.tsx';
import { Dialog, Told } from '../parts/dialog.tsx';
import { Field } from '../parts/field.tsx';
import { ProblemNote } from '../parts/problem.tsx';
import { client, SESSION, useOrder } from '../site/ask.ts';
import { PASSWORD_CHARS_MIN } from '../site/contract.ts';
import { useMe } from '../site/me.tsx';
import { roleName } from '../site/rights.ts';
import { Until } from '../words/when.tsx';

export function UserMenu() {
  const me = useMe();
  const [isOpen, setOpen] = useState(false);
  const [changes, setChanges] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const ending = useOrder<void>();

  useEffect(() => {
    if (!isOpen) return;
    const away = (event: Event) => {
      if (!box.current?.contains(event.target as Node)) setOpen(false);
    };
    const leave = (event: KeyboardEvent) => {
      if (event.key !== 'Escape') return;
      setOpen(false);
      box.current?.querySelector('button')?.focus();
    };
    addEventListener('pointerdown', away);
    addEventListener('focusin', away);
    addEventListener('keydown', leave);
    return () => {
      removeEventListener('pointerdown', away);
      removeEventListener('focusin', away);
      removeEventListener('keydown', leave);
    };
  }, [isOpen]);

  const signOut = () =>
    ending.mutate(
      { method: 'DELETE', path: SESSION },
      {
        onSuccess: () => {
          // What one saw is nobody else's at this browser.
          client.clear();
          client.setQueryData([SESSION], null);
        },
      },
    );
  const roles = [...new Set(me.grants.map(grant => roleName(grant.role)))].join(', ');
  return (
    <div className="user-menu" ref={box}>
      <Button
        kind="quiet"
        icon="users"
        aria-label={`You: ${me.user ?? me.actor}`}
        aria-expanded={isOpen}
        aria-controls="user-menu"
        onClick={() => setOpen(!isOpen)}
      >
        <span className="name">{me.user ?? me.actor}</span>
      </Button>
      {isOpen && (
        <div id="user-menu" className="menu">
          <p>
            <strong>{me.actor}</strong>
            <br />
            <span className="faint">{roles || 'no roles'}</span>
          </p>
          {me.until_ms !== undefined && (
            <p className="faint">
              This session ends <Until ms={me.until_ms} />.
            </p>
          )}
          {me.user && <Button onClick={() => setChanges(true)}>Change my password</Button>}
          <Button busy={ending.isPending} onClick={signOut}>
            Sign out
          </Button>
          {ending.error && <ProblemNote error={ending.error} />}
        </div>
      )}
      {changes && me.user && <ChangePassword user={me.user} onClose={() => setChanges(false)} />}
    </div>
  );
}

function ChangePassword({ user, onClose }: { user: string; onClose: () => void }) {
  const [before, setBefore] = useState('');
  const [password, setPassword] = useState('');
  const ordering = useOrder<unknown>();
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const path = `/v1/users/${encodeURIComponent(user)}/password`;
    ordering.mutate({ path, body: { password, before } });
  };
  if (ordering.isSuccess) {
    return (
      <Told title="Your password is changed" icon="ok" onClose={onClose}>
        <p>Every session of {user} has ended, this one too. Sign in with the new password.</p>
      </Told>
    );
  }
  return (
    <Dialog title="Change my password" onClose={onClose}>
      <form onSubmit={submit}>
        <Field
          label="Password until now"
          type="password"
          autoComplete="current-password"
          required
          value={before}
          onChange={setBefore}
        />
        <Field
          label="New password"
          type="password"
          autoComplete="new-password"
          required
          minLength={PASSWORD_CHARS_MIN}
          hint={`At least ${PASSWORD_CHARS_MIN} characters. Every session of yours ends.`}
          value={password}
          onChange={setPassword}
        />
        {ordering.error && <ProblemNote error={ordering.error} />}
        <div className="buttons">
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" kind="main" busy={ordering.isPending}>
            Change password
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
