# SPDX-License-Identifier: Apache-2.0
"""Calls SOAP services of the sandbox with the clients zeep and requests.

usage: soap_client.py CONSUMER_URL METASERVICES_WSDL FOLDER

Ends with status 0 if everything came back as it should.
"""
import email.parser
import email.policy
import os
import sys
import uuid

import requests
import zeep
from lxml import etree

url, metaservices, folder = sys.argv[1:]
XROAD, ID = "http://x-road.eu/xsd/xroad.xsd", "http://x-road.eu/xsd/identifiers"
SOAP, DATA = "http://schemas.xmlsoap.org/soap/envelope/", "http://sandbox.example/population"
XOP = "http://www.w3.org/2004/08/xop/include"


def identifier(name, kind, *codes):
    parts = ["xRoadInstance", "memberClass", "memberCode", "subsystemCode", "serviceCode"]
    element = etree.Element("{%s}%s" % (XROAD, name), {"{%s}objectType" % ID: kind})
    for part, code in zip(parts, codes):
        etree.SubElement(element, "{%s}%s" % (ID, part)).text = code
    return element


def header(service, client="portal"):
    def field(name, text):
        element = etree.Element("{%s}%s" % (XROAD, name))
        element.text = text
        return element

    return [
        identifier("client", "SUBSYSTEM", "SANDBOX", "GOV", "1001", client),
        identifier("service", "SERVICE", "SANDBOX", "GOV", "2002", "population", service),
        field("userId", "EE38001010001"),
        field("id", str(uuid.uuid4())),
        field("protocolVersion", "4.0"),
    ]


def equal(got, want):
    if got != want:
        raise AssertionError("got %r, want %r" % (got, want))


# zeep: metadata, then a service by the WSDL that the metadata service gave.
meta = zeep.Client(metaservices).create_service("{%s}metadata" % XROAD, url)
listed = meta.listMethods(_soapheaders=header("listMethods"))
equal([(s.subsystemCode, s.serviceCode) for s in listed], [("population", "personQuery")])
equal(len(meta.allowedMethods(_soapheaders=header("allowedMethods"))), 1)
equal(meta.allowedMethods(_soapheaders=header("allowedMethods", "stranger")), [])
answer = meta.getWsdl(serviceCode="personQuery", _soapheaders=header("getWsdl"))
document = answer.attachments[0]
equal(document.content_type, "text/xml")
if b"http://example.org/xroad-endpoint" not in document.content or b"127.0.0.14" in document.content:
    raise AssertionError("the WSDL shows where the service is")
wsdl = os.path.join(folder, "personQuery.wsdl")
with open(wsdl, "wb") as f:
    f.write(document.content)
population = zeep.Client(wsdl).create_service("{%s}population" % DATA, url)
person = population.personQuery(code="46002020002", _soapheaders=header("personQuery"))
equal((person.name, str(person.born)), ("Hans Sample", "1960-02-02"))
for ask, code in (
    (lambda: population.personQuery(code="nobody", _soapheaders=header("personQuery")), "e:Client"),
    (lambda: population.personQuery(code="46002020002", _soapheaders=header("personQuery", "stranger")), "server.serverproxy.access_denied"),
    (lambda: meta.getWsdl(serviceCode="residents", _soapheaders=header("getWsdl")), "server.serverproxy.service_type"),
    (lambda: meta.getWsdl(serviceCode="nothing", _soapheaders=header("getWsdl")), "server.serverproxy.unknown_service"),
):
    try:
        ask()
    except zeep.exceptions.Fault as fault:
        equal(fault.code, code)
    else:
        raise AssertionError("no fault " + code)


# requests: attachments, MTOM.
def envelope(form=False):
    top = etree.Element("{%s}Envelope" % SOAP, nsmap={"soap": SOAP})
    etree.SubElement(top, "{%s}Header" % SOAP).extend(header("personQuery"))
    question = etree.SubElement(etree.SubElement(top, "{%s}Body" % SOAP), "{%s}personQuery" % DATA)
    etree.SubElement(question, "code").text = "38001010001"
    if form:
        etree.SubElement(etree.SubElement(question, "form"), "{%s}Include" % XOP, href="cid:form@client")
    return etree.tostring(top, xml_declaration=True, encoding="UTF-8")


def post(parts, params):
    boundary = "python-" + uuid.uuid4().hex
    body = b""
    for fields, content in parts:
        body += b"--" + boundary.encode() + b"\r\n"
        body += b"".join(b"%s: %s\r\n" % (k.encode(), v.encode()) for k, v in fields) + b"\r\n" + content + b"\r\n"
    body += b"--" + boundary.encode() + b"--\r\n"
    r = requests.post(url, data=body, headers={"Content-Type": "multipart/related; %s; boundary=%s" % (params, boundary), "SOAPAction": '""'})
    equal(r.status_code, 200)
    head = b"Content-Type: " + r.headers["Content-Type"].encode() + b"\r\n\r\n"
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + r.content)
    equal(message.get_content_type(), "multipart/related")
    return message, list(message.iter_parts())


scan = bytes(range(32, 127)) * 3000
for parts, params, kind in (
    ([([("Content-Type", "text/xml; charset=UTF-8")], envelope()),
      ([("Content-Type", "application/octet-stream"), ("Content-ID", "<form@client>"), ("Content-Transfer-Encoding", "binary")], scan),
      ([("Content-Type", "text/plain; charset=utf-8")], "Grüße".encode())], 'type="text/xml"', "text/xml"),
    ([([("Content-Type", 'application/xop+xml; charset=UTF-8; type="text/xml"'), ("Content-ID", "<root@client>")], envelope(form=True)),
      ([("Content-Type", "application/octet-stream"), ("Content-ID", "<form@client>"), ("Content-Transfer-Encoding", "binary")], scan)],
     'type="application/xop+xml"; start="<root@client>"; start-info="text/xml"', "application/xop+xml"),
):
    message, answers = post(parts, params)
    equal(message.get_param("type"), kind)
    equal(answers[0].get_content_type(), kind)
    tree = etree.fromstring(answers[0].get_payload(decode=True))
    equal(tree.findtext(".//{%s}Body/*/name" % SOAP), "Maria Example")
    equal(len(tree.findall(".//{%s}requestHash" % XROAD)), 1)
    equal([a.get_payload(decode=True) for a in answers[1:]], [content for _, content in parts[1:]])
    if kind != "text/xml":
        equal(tree.find(".//{%s}Include" % XOP).get("href"), "cid:form@client")
        equal(answers[1]["Content-ID"], "<form@client>")
print("ok")
