import { type FormEvent, type ReactNode, useId, useLayoutEffect, useRef, useState } from 'react';
import { ASKED, Waits } from '../approvals/waits.tsx';
import { type Ordered, useOrder } from '../site/ask.ts';
import type { Approval } from '../site/contract.ts';
import { Button } from './button.tsx';
import { Icon, type IconName } from './icon.tsx';
import { ProblemNote } from './problem.tsx';

/** A modal dialog: the browser's own, which keeps the focus inside, closes by Escape and gives the focus back. */
export function Dialog({
  title,
  onClose,
  children,
  wide = false,
}: {
  title: string;
  onClose: () => void;
  children: ReactNode;
  wide?: boolean;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  // Before it leaves the page: only a dialog that is still there gives the focus back to where it came from.
  useLayoutEffect(() => {
    const shown = dialog.current;
    shown?.showModal();
    return () => shown?.close();
  }, []);
  return (
    <dialog
      ref={dialog}
      className={wide ? 'dialog broad' : 'dialog'}
      aria-labelledby={heading}
      onClose={onClose}
    >
      <h2 id={heading}>{title}</h2>
      {children}
    </dialog>
  );
}

/** Says what came of it, and closes. */
export function Told({
  title,
  icon,
  onClose,
  children,
}: {
  title: string;
  icon: IconName;
  onClose: () => void;
  children: ReactNode;
}) {
  return (
    <Dialog title={title} onClose={onClose}>
      <div className="note info" role="status">
        <Icon name={icon} />
        <div>{children}</div>
      </div>
      <div className="buttons">
        <Button kind="main" onClick={onClose}>
          Close
        </Button>
      </div>
    </Dialog>
  );
}

/**
 * Asks before something is done, says what will happen, and stays until it is known what came of it: done, refused, or
 * waiting for a second person.
 */
export function Confirm<T>({
  title,
  says,
  verb,
  danger = false,
  typed,
  order,
  children,
  wide = false,
  onClose,
  onDone,
}: {
  title: string;
  /** What will happen, in sentences. */
  says: ReactNode;
  verb: string;
  danger?: boolean;
  /** What has to be typed before it can be done: for what cannot be undone. */
  typed?: string;
  order: () => Ordered;
  /** Fields of the order. */
  children?: ReactNode;
  wide?: boolean;
  onClose: () => void;
  onDone?: (done: T) => void;
}) {
  const ordering = useOrder<T>();
  const [text, setText] = useState('');
  const [waits, setWaits] = useState<Approval>();
  const name = useId();
  const isReady = typed === undefined || text === typed;

  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (!isReady || ordering.isPending) return;
    ordering.mutate(order(), {
      onSuccess: came => {
        if ('waits' in came) return setWaits(came.waits);
        onDone?.(came.done);
        onClose();
      },
    });
  };

  if (waits) {
    return (
      <Told title={ASKED} icon="approval" onClose={onClose}>
        <Waits of={waits} />
      </Told>
    );
  }
  return (
    <Dialog title={title} wide={wide} onClose={onClose}>
      <form onSubmit={submit}>
        <div className="says">{says}</div>
        {children}
        {typed !== undefined && (
          <div className="field">
            <label htmlFor={name}>
              Type <code>{typed}</code> to confirm
            </label>
            <input
              id={name}
              value={text}
              autoComplete="off"
              spellCheck={false}
              onChange={event => setText(event.target.value)}
            />
          </div>
        )}
        {ordering.error && <ProblemNote error={ordering.error} />}
        <div className="buttons">
          <Button onClick={onClose}>Cancel</Button>
          <Button
            type="submit"
            kind={danger ? 'danger' : 'main'}
            disabled={!isReady}
            busy={ordering.isPending}
          >
            {verb}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
