import { type ButtonHTMLAttributes, type ReactNode, useId, useState } from 'react';
import type { Scope } from '../site/contract.ts';
import { useMe } from '../site/me.tsx';
import { may, whoMay } from '../site/rights.ts';
import { Icon, type IconName } from './icon.tsx';

interface Plain extends ButtonHTMLAttributes<HTMLButtonElement> {
  kind?: 'plain' | 'main' | 'danger' | 'quiet';
  icon?: IconName;
  busy?: boolean;
  children?: ReactNode;
}

export function Button({
  kind = 'plain',
  icon,
  busy,
  className = '',
  children,
  onClick,
  ...rest
}: Plain) {
  return (
    <button
      type="button"
      className={`button ${kind} ${className}`}
      aria-busy={busy || undefined}
      // A busy button keeps the focus, and does nothing.
      onClick={busy ? undefined : onClick}
      {...rest}
    >
      {icon && <Icon name={icon} />}
      {children}
    </button>
  );
}

/**
 * A button for what not everybody may. Who may not, still sees it, can reach it by keyboard, and hears who may: `disabled`
 * would take it out of his sight.
 */
export function ScopedButton({ scope, onClick, children, ...rest }: Plain & { scope: Scope }) {
  const me = useMe();
  const why = useId();
  if (may(me, scope)) {
    return (
      <Button onClick={onClick} {...rest}>
        {children}
      </Button>
    );
  }
  return (
    <span className="scoped">
      <Button aria-disabled="true" aria-describedby={why} {...rest}>
        {children}
      </Button>
      <span className="hint" id={why} role="tooltip">
        This takes {whoMay(scope)}.
      </span>
    </span>
  );
}

/** Copies a text and says that it did. */
export function CopyButton({ text, what }: { text: string; what: string }) {
  const [said, setSaid] = useState('');
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setSaid('Copied');
    } catch {
      setSaid('Not copied: select it and copy by hand');
    }
    setTimeout(() => setSaid(''), 2_000);
  };
  return (
    <>
      <Button
        kind="quiet"
        icon={said === 'Copied' ? 'ok' : 'copy'}
        aria-label={`Copy ${what}`}
        onClick={copy}
      />
      <span className="unseen" role="status">
        {said}
      </span>
    </>
  );
}
