"""python3-libvirt doing what bench/libvirt.ts does, in a process of its own: one JSON line for each piece of work."""
import json, resource, sys, threading, time
import libvirt

uri, work, argument = sys.argv[1], sys.argv[2], sys.argv[3:]


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def told(**figures):
    print(json.dumps(figures), flush=True)


def calls(threads, count):
    """`count` cheap calls over one connection, by so many threads."""
    connection = libvirt.open(uri)
    domain = connection.lookupByName('test')
    times = [[] for _ in range(threads)]

    def run(mine, share):
        for _ in range(share):
            at = time.perf_counter()
            domain.info()
            mine.append(time.perf_counter() - at)

    run([], 2000)
    used, began = cpu(), time.perf_counter()
    workers = [threading.Thread(target=run, args=(mine, count // threads)) for mine in times]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds, used = time.perf_counter() - began, cpu() - used
    all_times = sorted(one for mine in times for one in mine)
    told(rate=len(all_times) / seconds, p50=all_times[len(all_times) // 2] * 1e3, p99=all_times[int(len(all_times) * 0.99)] * 1e3, cpuUs=used / len(all_times) * 1e6)


def stats(rounds):
    connection = libvirt.open(uri)
    seconds, used = [], []
    for _ in range(rounds):
        before, at = cpu(), time.perf_counter()
        count = len(connection.getAllDomainStats())
        seconds.append(time.perf_counter() - at)
        used.append(cpu() - before)
    told(ms=sorted(seconds)[rounds // 2] * 1e3, cpuMs=sorted(used)[rounds // 2] * 1e3, count=count)


def upload(pool, volume, path):
    connection = libvirt.open(uri)
    target = connection.storagePoolLookupByName(pool).storageVolLookupByName(volume)
    at, before = time.perf_counter(), cpu()
    stream = connection.newStream(0)
    target.upload(stream, 0, 0, 0)
    with open(path, 'rb') as source:
        stream.sendAll(lambda _, size, file: file.read(size), source)
    stream.finish()
    told(seconds=time.perf_counter() - at, cpuMs=(cpu() - before) * 1e3)


def download(pool, volume):
    connection = libvirt.open(uri)
    source = connection.storagePoolLookupByName(pool).storageVolLookupByName(volume)
    at, before = time.perf_counter(), cpu()
    stream = connection.newStream(0)
    source.download(stream, 0, 0, 0)
    total = 0

    def take(_, data, __):
        nonlocal total
        total += len(data)

    stream.recvAll(take, None)
    stream.finish()
    told(seconds=time.perf_counter() - at, cpuMs=(cpu() - before) * 1e3, bytes=total)


def pss():
    with open('/proc/self/smaps_rollup') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('Pss:'))


def memory(count):
    kept = [libvirt.open(uri)]
    before = pss()
    kept += [libvirt.open(uri) for _ in range(count)]
    told(kib=(pss() - before) / count)


{
    'calls': lambda: calls(int(argument[0]), int(argument[1])),
    'stats': lambda: stats(int(argument[0])),
    'upload': lambda: upload(*argument),
    'download': lambda: download(*argument),
    'memory': lambda: memory(int(argument[0])),
}[work]()
