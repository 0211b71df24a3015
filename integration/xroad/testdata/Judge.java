// SPDX-License-Identifier: Apache-2.0

import ee.ria.xroad.common.asic.AsicContainerVerifier;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import jakarta.xml.bind.JAXBContext;
import jakarta.xml.bind.JAXBIntrospector;
import org.niis.xroad.globalconf.GlobalConfProvider;
import org.niis.xroad.globalconf.impl.FileSystemGlobalConfSource;
import org.niis.xroad.globalconf.impl.GlobalConfImpl;

import org.w3c.dom.Element;
import org.w3c.dom.Node;

import javax.xml.XMLConstants;
import javax.xml.parsers.DocumentBuilderFactory;
import javax.xml.transform.dom.DOMSource;
import javax.xml.validation.SchemaFactory;

import java.io.BufferedReader;
import java.io.File;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.lang.reflect.InvocationTargetException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.TreeSet;

/**
 * Asks X-Road's own classes to judge what Kontor made. A line on standard
 * input is a question, its words parted by tabs; a line on standard output is
 * the answer: "yes" or "no", then what there is to say.
 */
public final class Judge {
    public static void main(String[] args) throws Exception {
        var out = System.out;
        System.setOut(System.err); // whatever the classes print is no answer
        var in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line; (line = in.readLine()) != null;) {
            String answer;
            try {
                answer = "yes\t" + ask(line.split("\t"));
            } catch (Exception | LinkageError e) {
                Throwable cause = e;
                while (cause instanceof InvocationTargetException && cause.getCause() != null) {
                    cause = cause.getCause();
                }
                answer = "no\t" + cause.toString().replaceAll("\\s+", " ");
            }
            out.println(answer);
            out.flush();
        }
    }

    private static String ask(String[] q) throws Exception {
        return switch (q[0]) {
            case "container" -> container(q[1], q[2]);
            case "shared" -> schema("SharedParametersSchemaValidatorV" + q[1], q[2]);
            case "private" -> schema("PrivateParametersSchemaValidatorV" + (q[1].equals("2") ? "2" : "3"), q[2]);
            case "download" -> download(q[1], Integer.parseInt(q[2]), q[3]);
            case "request" -> request(load(q[1]), q[2], q[3]);
            case "network" -> network(load(q[1]));
            case "xml" -> xml(q[1], q[2], q[3]);
            case "json" -> json(q[1], q[2]);
            default -> throw new IllegalArgumentException(q[0]);
        };
    }

    private static GlobalConfProvider load(String dir) {
        System.setProperty("xroad.common.configuration-path", dir);
        return new GlobalConfImpl(new FileSystemGlobalConfSource(dir));
    }

    /** Verifies a container as asicverifier does; tells signer and time. */
    private static String container(String dir, String file) throws Exception {
        var v = new AsicContainerVerifier(load(dir), file);
        v.verify();
        return v.getSignerName() + "\t" + v.getTimestampDate().toInstant() + "\t" + v.getSignerCert().getPublicKey().getAlgorithm()
                + "\t" + String.join(", ", v.getAttachmentHashes());
    }

    private static String schema(String validator, String file) throws Exception {
        Class.forName("org.niis.xroad.globalconf.model." + validator).getMethod("validate", String.class)
                .invoke(null, Files.readString(Path.of(file)));
        return "";
    }

    /** Downloads a version of the global configuration with X-Road's configuration client. */
    private static String download(String anchor, int version, String dir) throws Exception {
        System.setProperty("xroad.proxy.configuration-anchor-file", anchor);
        System.setProperty("xroad.common.configuration-path", dir);
        Files.createDirectories(Path.of(dir));
        var type = Class.forName("org.niis.xroad.confclient.core.ConfigurationClient");
        var client = type.getConstructor(String.class, int.class).newInstance(dir, version);
        var result = type.getMethod("execute").invoke(client);
        return String.valueOf(result.getClass().getMethod("isSuccess").invoke(result));
    }

    /** Reads and verifies a management request as a central server does. */
    private static String request(GlobalConfProvider conf, String contentType, String file) throws Exception {
        var type = Class.forName("org.niis.xroad.common.managementrequest.verify.ManagementRequestVerifier");
        var verifier = type.getConstructor(GlobalConfProvider.class).newInstance(conf);
        try (var in = Files.newInputStream(Path.of(file))) {
            var result = type.getMethod("readRequest", String.class, InputStream.class).invoke(verifier, contentType, in);
            var service = result.getClass().getMethod("requestType").invoke(result);
            var request = result.getClass().getMethod("request").invoke(result);
            return service.getClass().getMethod("getServiceCode").invoke(service) + "\t"
                    + request.getClass().getMethod("getServer").invoke(request);
        }
    }

    /**
     * Reads what a document or, if it is one, the body of an envelope has, with
     * classes generated from a schema of the class path; the last is the class
     * that makes them, or "-" for none. Tells its name and what it means.
     */
    private static String xml(String schema, String factory, String file) throws Exception {
        var documents = DocumentBuilderFactory.newInstance();
        documents.setNamespaceAware(true);
        Element e = documents.newDocumentBuilder().parse(new File(file)).getDocumentElement();
        if (e.getLocalName().equals("Envelope")) {
            var body = e.getElementsByTagNameNS(e.getNamespaceURI(), "Body").item(0);
            Node first = body.getFirstChild();
            while (first.getNodeType() != Node.ELEMENT_NODE) {
                first = first.getNextSibling();
            }
            e = (Element) first;
        }
        var grammar = Judge.class.getClassLoader().getResource(schema);
        if (grammar == null) {
            throw new ClassNotFoundException(schema);
        }
        SchemaFactory.newInstance(XMLConstants.W3C_XML_SCHEMA_NS_URI).newSchema(grammar).newValidator().validate(new DOMSource(e));
        if (factory.equals("-")) {
            return e.getLocalName();
        }
        var context = JAXBContext.newInstance(Class.forName(factory));
        return e.getLocalName() + "\t" + new ObjectMapper().writeValueAsString(JAXBIntrospector.getValue(context.createUnmarshaller().unmarshal(e)));
    }

    /** Reads JSON as a class; no field may be unknown to it. Tells what it means. */
    private static String json(String type, String file) throws Exception {
        var mapper = new ObjectMapper();
        if (type.contains(".metadata.")) {
            mapper.setPropertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE);
        }
        return new ObjectMapper().writeValueAsString(mapper.readValue(new File(file), Class.forName(type)));
    }

    /** Tells what a security server would read out of the configuration. */
    private static String network(GlobalConfProvider conf) throws Exception {
        conf.verifyValidity();
        var facts = new TreeSet<String>();
        var instance = conf.getInstanceIdentifier();
        facts.add("instance " + instance);
        for (var m : conf.getMembers(instance)) {
            facts.add("client " + m.id() + " " + m.name() + ", " + m.subsystemName());
        }
        for (var s : conf.getSecurityServers(instance)) {
            facts.add("server " + s + " " + conf.getSecurityServerAddress(s) + " of " + conf.getServerOwner(s));
            for (var m : conf.getMembers(instance)) {
                if (conf.isSecurityServerClient(m.id(), s)) {
                    facts.add("registered " + m.id() + " at " + s);
                }
            }
        }
        for (var ca : conf.getAllCaCerts(instance)) {
            for (var url : conf.getOcspResponderAddressesForCaCertificate(ca)) {
                facts.add("ocsp " + url + " of " + ca.getSubjectX500Principal().getName());
            }
        }
        for (var ca : conf.getApprovedCAs(instance)) {
            facts.add("ca " + ca.getName() + " " + ca.getCertificateProfileInfo());
        }
        for (var url : conf.getApprovedTspUrls(instance)) {
            facts.add("tsa " + url + " " + conf.getApprovedTspName(instance, url));
        }
        for (var cert : conf.getTspCertificates()) {
            facts.add("tsa certificate " + cert.getSubjectX500Principal().getName());
        }
        for (var c : conf.getMemberClasses(instance)) {
            facts.add("class " + c);
        }
        for (var g : conf.getGlobalGroups(instance)) {
            facts.add("group " + g.id() + " " + g.description());
            for (var m : conf.getMembers(instance)) {
                if (conf.isSubjectInGlobalGroup(m.id(), g.id())) {
                    facts.add("has " + m.id() + " " + g.id());
                }
            }
        }
        facts.add("management " + conf.getManagementRequestService() + " " + conf.getManagementRequestServiceAddress());
        facts.add("freshness " + conf.getOcspFreshnessSeconds());
        facts.add("timestamping " + conf.getTimestampingIntervalSeconds());
        var extensions = conf.getGlobalConfExtensions();
        facts.add("monitor " + extensions.getMonitoringClient());
        facts.add("ocsp fetched every " + extensions.getOcspFetchInterval() + " s, next update verified: " + extensions.shouldVerifyOcspNextUpdate());
        return String.join("\t", facts);
    }
}
