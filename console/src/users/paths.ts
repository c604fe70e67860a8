/** Where the affairs of users are. */

const user = (name: string) => `/v1/users/${encodeURIComponent(name)}`;

export const paths = {
  users: '/v1/users',
  grants: (name: string) => `${user(name)}/grants`,
  password: (name: string) => `${user(name)}/password`,
  disable: (name: string) => `${user(name)}/disable`,
  enable: (name: string) => `${user(name)}/enable`,
  sessions: (name: string) => `${user(name)}/sessions`,
  tokens: '/v1/tokens',
  token: (id: string) => `/v1/tokens/${encodeURIComponent(id)}`,
  sites: '/v1/sites',
  twoPeople: '/v1/settings/two-people',
};
