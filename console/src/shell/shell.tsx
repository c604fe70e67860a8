import { type ReactNode, useEffect, useRef, useState } from 'react';
import { secondsNow } from '../approvals/second.ts';
import { Button } from '../parts/button.tsx';
import { Icon, Mark } from '../parts/icon.tsx';
import { go, Link, pathTo, usePlace } from '../route.tsx';
import { FIRING, OPEN_APPROVALS, useAsk, useStream } from '../site/ask.ts';
import type { Alerts, Approvals } from '../site/contract.ts';
import { useLive } from '../site/live.ts';
import { useMe } from '../site/me.tsx';
import { may } from '../site/rights.ts';
import { count } from '../words/number.ts';
import { KeysHelp, useKeys } from './keys.tsx';
import { PAGES } from './pages.ts';
import { setTheme, THEMES, type Theme, useTheme } from './theme.ts';
import { UserMenu } from './user-menu.tsx';

/** What stands around every page: where one can go, what is wrong now, whether one sees what is, who one is. */
export function Shell({ children }: { children: ReactNode }) {
  const { page, name } = usePlace();
  const { help, setHelp } = useKeys();
  const [isOpen, setOpen] = useState(false);
  const main = useRef<HTMLElement>(null);
  const { site } = useMe();
  useStream();

  // Whoever has gone somewhere wants to see it.
  useEffect(() => {
    setOpen(false);
    main.current?.scrollTo(0, 0);
  }, [page, name]);

  const skip = () => main.current?.focus();
  return (
    <div className="shell">
      <Button className="skip" onClick={skip}>
        Skip to the page
      </Button>
      <header className="top">
        <Button
          kind="quiet"
          icon="menu"
          className="narrow-menu"
          aria-label="Pages"
          aria-expanded={isOpen}
          aria-controls="pages"
          onClick={() => setOpen(!isOpen)}
        />
        <Link to={pathTo('fleet')} className="brand">
          <Mark />
          <span>Plimsoll</span> <span className="site">{site}</span>
        </Link>
        <Search />
        <LiveSign />
        <ThemeButton />
        <UserMenu />
      </header>
      <nav id="pages" className={isOpen ? 'pages open' : 'pages'} aria-label="Pages">
        <PageList />
        <Button kind="quiet" className="help" onClick={() => setHelp(true)}>
          Keys <kbd>?</kbd>
        </Button>
      </nav>
      <main ref={main} tabIndex={-1}>
        {children}
      </main>
      {help && <KeysHelp onClose={() => setHelp(false)} />}
    </div>
  );
}

function PageList() {
  const { page } = usePlace();
  const me = useMe();
  const alerts = useAsk<Alerts>(FIRING, {
    enabled: may(me, 'alerts.read'),
  });
  const approvals = useAsk<Approvals>(OPEN_APPROVALS, { enabled: may(me, 'approvals.write') });
  const waiting: Record<string, [n: number, of: string] | undefined> = {
    alerts: alerts.data && [alerts.data.firing, 'firing'],
    approvals: approvals.data && [secondsNow(me, approvals.data.approvals), 'wait for you'],
  };
  const at = page === 'devices' ? 'fleet' : page;
  return (
    <ul>
      {PAGES.filter(one => !one.scope || may(me, one.scope)).map(one => {
        const [n, of] = waiting[one.page] ?? [0, ''];
        return (
          <li key={one.page}>
            <Link to={pathTo(one.page)} aria-current={at === one.page ? 'page' : undefined}>
              <Icon name={one.icon} />
              <span>{one.title}</span>
              {n > 0 && (
                <span className={one.page === 'alerts' ? 'tally bad' : 'tally'}>
                  {count(n)}
                  <span className="unseen"> {of}</span>
                </span>
              )}
            </Link>
          </li>
        );
      })}
    </ul>
  );
}

/** Search is the fleet's, from wherever one is. */
function Search() {
  const { page, query } = usePlace();
  const sought = page === 'fleet' ? (query.get('search') ?? '') : '';
  const [text, setText] = useState(sought);
  useEffect(() => setText(sought), [sought]);
  const isHere = page === 'fleet';

  // On the fleet's page the table follows the typing; elsewhere Enter goes there.
  const look = (next: string) => {
    setText(next);
    if (isHere) {
      const set = new URLSearchParams(location.search);
      if (next) set.set('search', next);
      else set.delete('search');
      go(`${pathTo('fleet')}${set.size > 0 ? `?${set}` : ''}`, { replace: true });
    }
  };
  return (
    <search className="search">
      <form
        onSubmit={event => {
          event.preventDefault();
          if (!isHere) go(pathTo('fleet', undefined, { search: text }));
        }}
      >
        <Icon name="search" />
        <input
          id="search"
          type="search"
          aria-label="Search devices by id or serial number"
          placeholder="Search devices"
          autoComplete="off"
          spellCheck={false}
          value={text}
          onChange={event => look(event.target.value)}
        />
        <kbd>/</kbd>
      </form>
    </search>
  );
}

/** Whether what one sees is what is. */
function LiveSign() {
  const live = useLive();
  const [word, title] =
    live === 'live'
      ? ['Live', 'Changes show as they happen.']
      : live === 'connecting'
        ? ['Connecting', 'The stream of changes is being opened.']
        : [
            'Every 5 s',
            'There is no stream of changes at the moment. The page is asked for again every 5 s.',
          ];
  return (
    <span className={`live is-${live}`} role="status" title={title}>
      <span className="lamp" aria-hidden="true" />
      <span className="word">{word}</span>
    </span>
  );
}

const THEME_ICONS = { auto: 'auto', light: 'sun', dark: 'moon' } as const;
const THEME_NAMES: Record<Theme, string> = {
  auto: 'as this machine',
  light: 'light',
  dark: 'dark',
};

function ThemeButton() {
  const theme = useTheme();
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? 'auto';
  return (
    <Button
      kind="quiet"
      icon={THEME_ICONS[theme]}
      aria-label={`Colours: ${THEME_NAMES[theme]}. Change to ${THEME_NAMES[next]}`}
      title={`Colours: ${THEME_NAMES[theme]}`}
      onClick={() => setTheme(next)}
    />
  );
}
