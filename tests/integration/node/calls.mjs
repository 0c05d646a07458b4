// Reads calls, a JSON object a line, makes them with one of the SDKs as it was installed, and writes what came of each.
import { webcrypto } from 'node:crypto'
import { createInterface } from 'node:readline'
import * as integrationApp from '@integration-app/sdk'
import * as membrane from '@membranehq/sdk'

globalThis.crypto ??= webcrypto // Node.js 18 does not have it there yet

const CLIENTS = {
  '@integration-app/sdk': integrationApp.IntegrationAppClient,
  '@membranehq/sdk': membrane.MembraneClient,
}

async function answer({ sdk, options, fetched, selector, steps, args }) {
  const tokens = fetched && { fetchToken: async () => fetched }
  const connection = new CLIENTS[sdk]({ ...options, ...tokens }).connection(selector)
  const target = steps.slice(0, -1).reduce((object, step) => object[step], connection)
  try {
    return { value: (await target[steps.at(-1)](...args)) ?? null }
  } catch (error) {
    return { error: shown(error) }
  }
}

function shown(error) {
  const kinds = []
  for (let kind = error.constructor; kind !== Error && kind.name; kind = Object.getPrototypeOf(kind)) {
    kinds.push(kind.name)
  }
  const { message, data, response } = error
  return { kinds, message, data, status: response?.status, body: response?.data }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answer(JSON.parse(line))))
}
