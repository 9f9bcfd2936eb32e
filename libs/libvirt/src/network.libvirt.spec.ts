/** Networks and their ports, and filters. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { connect } from './connection.ts';
import type { Libvirt } from './connection.ts';
import { errorCodes, isNoNetwork, UnsupportedError } from './errors.ts';
import { connections, failures } from './testing-connections.ts';
import { startLibvirtd, startSystemLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd, OwnSystemLibvirtd } from './testing-libvirtd.os.ts';

const { reach, closeAll } = connections();
afterEach(closeAll);

describe('networks of the test driver', () => {
  let daemon: OwnLibvirtd;
  let anchor: Libvirt;
  beforeAll(async () => {
    daemon = await startLibvirtd();
    anchor = await connect(daemon.testDriver);
  }, 60_000);
  afterAll(async () => {
    await anchor?.close();
    await daemon?.stop();
  });

  it('are counted and listed', async () => {
    const libvirt = await reach(daemon.testDriver);
    expect(await libvirt.connectNumOfNetworks()).toBe(1);
    expect(await libvirt.connectListNetworks()).toEqual(['default']);
    expect(await libvirt.connectNumOfDefinedNetworks()).toBe(0);
    const network = await libvirt.networkCreateXml({ xml: `<network><name>now</name><bridge name='virbr9'/></network>` });
    expect(await libvirt.networkIsPersistent({ network })).toBe(false);
    await libvirt.networkDestroy({ network });
    const again = await libvirt.networkCreateXmlFlags({ xml: `<network><name>now</name><bridge name='virbr9'/></network>`, flags: ['validate'] });
    await libvirt.networkDestroy({ network: again });
    await expect(libvirt.networkLookupByName({ name: 'now' })).rejects.toSatisfy(isNoNetwork);
    await libvirt.networkDefineXml({ xml: `<network><name>off</name><bridge name='virbr8'/></network>` });
    expect(await libvirt.connectListDefinedNetworks()).toEqual(['off']);
    await libvirt.networkUndefine({ network: await libvirt.networkLookupByName({ name: 'off' }) });
  });

  it('have no ports', async () => {
    const libvirt = await reach(daemon.testDriver);
    const network = await libvirt.networkLookupByName({ name: 'default' });
    const port = { network, uuid: network.uuid };
    const refused = await failures([
      libvirt.networkListAllPorts({ network }),
      libvirt.networkPortLookupByUuid(port),
      libvirt.networkPortCreateXml({ network, xml: '<networkport/>' }),
    ]);
    for (const error of refused) expect(error).toBeInstanceOf(UnsupportedError);
  });
});

describe('networks of a system libvirtd', () => {
  let daemon: OwnSystemLibvirtd;
  let libvirt: Libvirt;
  beforeAll(async () => {
    daemon = await startSystemLibvirtd();
    libvirt = await connect(daemon.qemuSystem);
  }, 60_000);
  afterAll(async () => {
    await libvirt?.close();
    await daemon?.stop();
  });

  it('have ports, with limits of their own', async () => {
    const network = await libvirt.networkCreateXmlFlags({
      xml: `<network><name>ports</name><bridge name='virbr78'/><ip address='10.78.0.1' prefix='24'/></network>`,
      flags: ['validate'],
    });
    const owner = '7f0c0de0-0000-4000-8000-0000000000aa';
    const uuid = '7f0c0de0-0000-4000-8000-0000000000ab';
    const port = await libvirt.networkPortCreateXml({
      network,
      xml: `<networkport><uuid>${uuid}</uuid><owner><name>guest</name><uuid>${owner}</uuid></owner><mac address='52:54:0a:4e:00:02'/></networkport>`,
      flags: ['validate'],
    });
    expect(port).toEqual({ network, uuid });
    expect(await libvirt.networkListAllPorts({ network })).toEqual([port]);
    expect(await libvirt.networkPortLookupByUuid({ network, uuid })).toEqual(port);
    expect(await libvirt.networkPortGetXmlDesc({ port })).toContain("<mac address='52:54:0a:4e:00:02'/>");
    expect(await libvirt.networkPortGetParameters({ port })).toEqual({});
    // Without a device to act on there is nothing to limit.
    await libvirt.networkPortSetParameters({ port, parameters: { 'outbound.average': 128 } }).catch((error: unknown) => expect(error).toMatchObject({ call: 'networkPortSetParameters' }));
    await libvirt.networkPortDelete({ port });
    await expect(libvirt.networkPortLookupByUuid({ network, uuid })).rejects.toMatchObject({ code: errorCodes.noNetworkPort });
    await libvirt.networkDestroy({ network });
  });

  it('are filtered', async () => {
    const filter = await libvirt.nwfilterDefineXmlFlags({ xml: `<filter name='only-arp' chain='root'><rule action='accept' direction='inout'><arp/></rule></filter>`, flags: ['validate'] });
    expect(await libvirt.connectListAllNwfilters()).toEqual([filter]);
    expect(await libvirt.connectListNwfilters()).toEqual(['only-arp']);
    expect(await libvirt.connectNumOfNwfilters()).toBe(1);
    expect(await libvirt.nwfilterLookupByName({ name: 'only-arp' })).toEqual(filter);
    expect(await libvirt.nwfilterLookupByUuid({ uuid: filter.uuid })).toEqual(filter);
    expect(await libvirt.nwfilterGetXmlDesc({ filter })).toContain("<filter name='only-arp'");
    expect(await libvirt.nwfilterDefineXml({ xml: (await libvirt.nwfilterGetXmlDesc({ filter })).replace('accept', 'drop') })).toEqual(filter);
    expect(await libvirt.connectListAllNwfilterBindings()).toEqual([]);
    await expect(libvirt.nwfilterBindingLookupByPortDev({ name: 'vnet0' })).rejects.toMatchObject({ code: errorCodes.noFilterBinding });
    await expect(libvirt.nwfilterBindingGetXmlDesc({ binding: { portDevice: 'vnet0' } })).rejects.toMatchObject({ code: errorCodes.noFilterBinding });
    await expect(libvirt.nwfilterBindingDelete({ binding: { portDevice: 'vnet0' } })).rejects.toMatchObject({ code: errorCodes.noFilterBinding });
    // A guest's interface with the filter makes a binding; made by hand it wants a device that is there.
    const made = await libvirt
      .nwfilterBindingCreateXml({
        xml: `<filterbinding><owner><name>g</name><uuid>7f0c0de0-0000-4000-8000-0000000000aa</uuid></owner><portdev name='lo'/><mac address='52:54:0a:4e:00:02'/><filterref filter='only-arp'/></filterbinding>`,
      })
      .catch((error: unknown) => error);
    if (!(made instanceof Error)) {
      expect(made).toEqual({ portDevice: 'lo', filter: 'only-arp' });
      expect(await libvirt.connectListAllNwfilterBindings()).toEqual([made]);
      await libvirt.nwfilterBindingDelete({ binding: { portDevice: 'lo' } });
    } else expect(made).toMatchObject({ name: 'LibvirtError', call: 'nwfilterBindingCreateXml' });
    await libvirt.nwfilterUndefine({ filter });
    await expect(libvirt.nwfilterLookupByName({ name: 'only-arp' })).rejects.toMatchObject({ code: errorCodes.noFilter });
  });
});
