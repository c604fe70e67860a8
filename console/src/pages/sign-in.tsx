import { type FormEvent, useEffect, useRef, useState } from 'react';
import { Button } from '../parts/button.tsx';
import { Field } from '../parts/field.tsx';
import { Icon, Mark } from '../parts/icon.tsx';
import { client, SESSION } from '../site/ask.ts';
import { change, Refused } from '../site/call.ts';
import type { Me } from '../site/contract.ts';
import { span } from '../words/time.ts';
import { useNow } from '../words/when.tsx';

export function SignIn() {
  const [user, setUser] = useState('');
  const [password, setPassword] = useState('');
  const [isBusy, setBusy] = useState(false);
  const [refused, setRefused] = useState<Refused>();
  const [waitUntil, setWaitUntil] = useState(0);
  const name = useRef<HTMLDivElement>(null);
  const now = useNow();
  const waits = waitUntil > now;

  useEffect(() => {
    document.title = 'Sign in – Plimsoll';
    // What the one before saw is not the next one's to see.
    client.removeQueries({ predicate: query => query.queryKey[0] !== SESSION });
    name.current?.querySelector('input')?.focus();
  }, []);

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (isBusy || waits) return;
    setBusy(true);
    try {
      const came = await change<Me>('POST', SESSION, { user, password });
      if ('done' in came) client.setQueryData([SESSION], came.done);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setRefused(error);
      setPassword('');
      if (error.retryAfterS) setWaitUntil(Date.now() + error.retryAfterS * 1000);
    } finally {
      setBusy(false);
    }
  };
  return (
    <main className="sign-in">
      <form onSubmit={submit} aria-labelledby="sign-in">
        <div className="brand">
          <Mark />
          <span>Plimsoll</span>
        </div>
        <h1 id="sign-in">Sign in</h1>
        <p className="faint">{location.host}</p>
        <div ref={name}>
          <Field
            label="User"
            autoComplete="username"
            autoCapitalize="none"
            spellCheck={false}
            required
            value={user}
            onChange={setUser}
          />
        </div>
        <Field
          label="Password"
          type="password"
          autoComplete="current-password"
          required
          value={password}
          onChange={setPassword}
        />
        <Button type="submit" kind="main" busy={isBusy} aria-disabled={waits || undefined}>
          {isBusy ? 'Signing in' : 'Sign in'}
        </Button>
        <div className="said" aria-live="assertive">
          {refused && (
            <div className="note bad">
              <Icon name="warn" />
              <div>
                <strong>{title(refused)}</strong>
                <p>
                  {waits
                    ? `Too many attempts. Try again in ${span(waitUntil - now)}.`
                    : said(refused)}
                </p>
              </div>
            </div>
          )}
        </div>
      </form>
    </main>
  );
}

function title(refused: Refused): string {
  return refused.status === 401 ? 'Not signed in' : refused.title;
}

function said(refused: Refused): string {
  // Which of them it was is not said to whoever may be guessing.
  if (refused.status === 401) return 'User and password do not fit, or the user is disabled.';
  if (refused.status === 429) return 'Too many attempts. Try again now.';
  return refused.detail;
}
