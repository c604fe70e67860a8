/** A target as it is being written down. Pure. Secrets are only ever written: no form is filled with one. */

import type { MailSecurity, Priority, Target } from '../site/contract.ts';

export interface TargetForm {
  id: string;
  way: 'webhook' | 'mail';
  url: string;
  host: string;
  port: string;
  security: MailSecurity;
  user: string;
  from: string;
  to: string;
  /** The webhook's secret or the mail server's password; empty: the one before is kept. */
  secret: string;
  caPem: string;
  fromPriority: Priority;
  reports: boolean;
}

export const NEW_TARGET: TargetForm = {
  id: '',
  way: 'webhook',
  url: 'https://',
  host: '',
  port: '465',
  security: 'tls',
  user: '',
  from: '',
  to: '',
  secret: '',
  caPem: '',
  fromPriority: 'notice',
  reports: false,
};

export function formOf(target: Target): TargetForm {
  const common = {
    ...NEW_TARGET,
    id: target.id,
    fromPriority: target.from_priority,
    reports: target.reports,
  };
  if ('webhook' in target.way) {
    const { url, ca_pem } = target.way.webhook;
    return { ...common, way: 'webhook', url, caPem: ca_pem ?? '' };
  }
  const { host, port, security, user, from, to, ca_pem } = target.way.mail;
  return {
    ...common,
    way: 'mail',
    host,
    port: String(port),
    security,
    user: user ?? '',
    from,
    to: to.join(', '),
    caPem: ca_pem ?? '',
  };
}

export function targetOf(form: TargetForm): Target {
  const ca = form.caPem.trim() ? { ca_pem: form.caPem.trim() } : {};
  const common = {
    id: form.id.trim(),
    from_priority: form.fromPriority,
    reports: form.reports,
  };
  if (form.way === 'webhook') {
    const secret = form.secret ? { secret: form.secret } : {};
    return { ...common, way: { webhook: { url: form.url.trim(), ...secret, ...ca } } };
  }
  return {
    ...common,
    way: {
      mail: {
        host: form.host.trim(),
        port: Number(form.port),
        security: form.security,
        ...(form.user.trim() ? { user: form.user.trim() } : {}),
        ...(form.secret ? { password: form.secret } : {}),
        from: form.from.trim(),
        to: form.to
          .split(',')
          .map(one => one.trim())
          .filter(Boolean),
        ...ca,
      },
    },
  };
}

/** Where it goes, in a line. */
export function goesTo({ way }: Pick<Target, 'way'>): string {
  return 'webhook' in way ? way.webhook.url : way.mail.to.join(', ');
}

/** The port that each way of a mail server is usually at. */
export const MAIL_PORTS: Record<MailSecurity, string> = { tls: '465', starttls: '587', plain: '25' };
